//! The operations and resources of Kafka's access control lists. The table of APIs names them for every API, the table
//! of HTTP routes for every route, so that none is served without.

/// Kafka's resource type of an access control entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Topic,
    Group,
    Cluster,
    TransactionalId,
}

/// Kafka's operation of an access control entry, with its number.
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
    /// Whether it changes the resource.
    pub(crate) fn changes(self) -> bool {
        !matches!(self, Read | Describe | DescribeConfigs)
    }
}

/// An operation that a request performs on every resource of this type that it names.
pub(crate) type Need = (Operation, Resource);

/// Who sent a request. Clients do not authenticate yet, and every client may do everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Principal {
    Anonymous,
}

impl Resource {
    /// The operations that the resource type has.
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
    /// Whether the principal may do this to a resource of the type.
    pub(crate) fn may(&self, (operation, resource): Need) -> bool {
        match self {
            Principal::Anonymous => resource.operations().contains(&operation),
        }
    }

    /// The first of `needs` that the principal is not allowed.
    pub(crate) fn lacks(&self, needs: &[Need]) -> Option<Need> {
        needs.iter().copied().find(|need| !self.may(*need))
    }

    /// The principal's operations on a resource type as a response carries them: a bit for each operation.
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
