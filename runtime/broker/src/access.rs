//! What a request does to what, as Kafka's access control lists name it. The table of APIs says it of every API, that of HTTP's
//! routes of every route, so that none is served without.

/// A kind of thing that access is given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Topic,
    Group,
    Cluster,
    TransactionalId,
}

/// What is done to it. The numbers are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    ClusterAction = 9,
    DescribeConfigs = 10,
    AlterConfigs = 11,
    IdempotentWrite = 12,
}

use Operation::{
    Alter, AlterConfigs, ClusterAction, Create, Delete, Describe, DescribeConfigs, IdempotentWrite, Read,
    Write,
};

impl Operation {
    /// Whether something is different afterwards.
    pub(crate) fn changes(self) -> bool {
        !matches!(self, Read | Describe | DescribeConfigs)
    }
}

/// An operation that a request asks for, on each thing of the kind that it names.
pub(crate) type Need = (Operation, Resource);

/// Who sent a request. Nobody says so yet, and everybody may do everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Principal {
    Anonymous,
}

impl Resource {
    /// What can be done to it at all.
    fn operations(self) -> &'static [Operation] {
        match self {
            Resource::Topic => &[Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs],
            Resource::Group => &[Read, Delete, Describe, DescribeConfigs, AlterConfigs],
            Resource::Cluster => {
                &[Create, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite]
            }
            Resource::TransactionalId => &[Describe, Write],
        }
    }
}

impl Principal {
    /// Whether it may do this to anything of the kind.
    pub(crate) fn may(&self, (operation, resource): Need) -> bool {
        match self {
            Principal::Anonymous => resource.operations().contains(&operation),
        }
    }

    /// The first of these that it may not do.
    pub(crate) fn lacks(&self, needs: &[Need]) -> Option<Need> {
        needs.iter().copied().find(|need| !self.may(*need))
    }

    /// What it may do to things of a kind, as a client is told that asks for it: a bit for each operation.
    pub(crate) fn authorized(&self, asked: bool, resource: Resource) -> i32 {
        /// Kafka's value for "was not asked for".
        const NOT_ASKED: i32 = i32::MIN;
        if !asked {
            return NOT_ASKED;
        }
        let allowed = resource.operations().iter().filter(|operation| self.may((**operation, resource)));
        allowed.fold(0, |bits, operation| bits | 1 << *operation as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_kafkas() {
        let anonymous = Principal::Anonymous;
        assert_eq!(anonymous.authorized(false, Resource::Topic), i32::MIN);
        assert_eq!(anonymous.authorized(true, Resource::Topic), 0b1101_1111_1000);
        assert_eq!(anonymous.authorized(true, Resource::Group), 0b1101_0100_1000);
        assert_eq!(anonymous.authorized(true, Resource::Cluster), 0b1_1111_1010_0000);
    }
}
