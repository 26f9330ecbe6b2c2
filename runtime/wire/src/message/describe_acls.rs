//! DescribeAcls (key 29): which access control lists there are.

use crate::error_code::ErrorCode;

messages! {
    api DescribeAcls: DescribeAclsRequest => DescribeAclsResponse;

    /// What the entries must match; null matches everything.
    pub struct DescribeAclsRequest {
        resource_type_filter: i8,
        resource_name_filter: Option<String> = Some(Default::default()),
        pattern_type_filter: i8 = 3,
        principal_filter: Option<String> = Some(Default::default()),
        host_filter: Option<String> = Some(Default::default()),
        operation: i8,
        permission_type: i8,
    }

    /// The entries, by resource.
    pub struct DescribeAclsResponse {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        error_message: Option<String> = Some(Default::default()),
        resources: Vec<DescribeAclsResource>,
    }

    /// Entries of one resource.
    pub struct DescribeAclsResource {
        resource_type: i8,
        resource_name: String,
        pattern_type: i8 = 3,
        acls: Vec<AclDescription>,
    }

    /// One entry.
    pub struct AclDescription {
        principal: String,
        host: String,
        operation: i8,
        permission_type: i8,
    }
}
