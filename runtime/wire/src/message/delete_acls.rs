//! DeleteAcls (key 31): removes entries from access control lists.

use crate::error_code::ErrorCode;

messages! {
    api DeleteAcls: DeleteAclsRequest => DeleteAclsResponse;

    /// Filters: entries that match one of them are removed.
    pub struct DeleteAclsRequest {
        filters: Vec<DeleteAclsFilter>,
    }

    /// What the entries must match; null matches everything.
    pub struct DeleteAclsFilter {
        resource_type_filter: i8,
        resource_name_filter: Option<String> = Some(Default::default()),
        pattern_type_filter: i8 = 3,
        principal_filter: Option<String> = Some(Default::default()),
        host_filter: Option<String> = Some(Default::default()),
        operation: i8,
        permission_type: i8,
    }

    /// What each filter found, in the order of the request.
    pub struct DeleteAclsResponse {
        throttle_time_ms: i32,
        filter_results: Vec<DeleteAclsFilterResult>,
    }

    /// What one filter found.
    pub struct DeleteAclsFilterResult {
        error_code: ErrorCode,
        error_message: Option<String> = Some(Default::default()),
        matching_acls: Vec<DeleteAclsMatchingAcl>,
    }

    /// One entry, and the result for it.
    pub struct DeleteAclsMatchingAcl {
        error_code: ErrorCode,
        error_message: Option<String> = Some(Default::default()),
        resource_type: i8,
        resource_name: String,
        pattern_type: i8 = 3,
        principal: String,
        host: String,
        operation: i8,
        permission_type: i8,
    }
}
