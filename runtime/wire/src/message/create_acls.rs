//! CreateAcls (key 30): adds entries to access control lists.

use crate::error_code::ErrorCode;

messages! {
    api CreateAcls: CreateAclsRequest => CreateAclsResponse;

    /// The entries.
    pub struct CreateAclsRequest {
        creations: Vec<AclCreation>,
    }

    /// One entry.
    pub struct AclCreation {
        resource_type: i8,
        resource_name: String,
        resource_pattern_type: i8 = 3,
        principal: String,
        host: String,
        operation: i8,
        permission_type: i8,
    }

    /// The result for each, in the order of the request.
    pub struct CreateAclsResponse {
        throttle_time_ms: i32,
        results: Vec<AclCreationResult>,
    }

    /// The result for one entry.
    pub struct AclCreationResult {
        error_code: ErrorCode,
        error_message: Option<String> = Some(Default::default()),
    }
}
