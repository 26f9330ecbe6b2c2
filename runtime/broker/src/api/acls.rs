//! DescribeAcls, CreateAcls and DeleteAcls: refused with SECURITY_DISABLED, as Kafka without an authorizer does.

use pelton_wire::ErrorCode;
use pelton_wire::message::create_acls::AclCreationResult;
use pelton_wire::message::delete_acls::DeleteAclsFilterResult;
use pelton_wire::message::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
    DescribeAclsResponse,
};

use super::context::RequestContext;
use super::reply::Reply;

const NO_AUTHORIZER: &str = "this broker has no authorizer: every client may do everything";

pub(crate) fn describe(_: &RequestContext, _: DescribeAclsRequest) -> Reply<DescribeAclsResponse> {
    Reply::ready(DescribeAclsResponse {
        error_code: ErrorCode::SECURITY_DISABLED,
        error_message: Some(NO_AUTHORIZER.to_owned()),
        ..Default::default()
    })
}

pub(crate) fn create(_: &RequestContext, request: CreateAclsRequest) -> Reply<CreateAclsResponse> {
    let refused = AclCreationResult {
        error_code: ErrorCode::SECURITY_DISABLED,
        error_message: Some(NO_AUTHORIZER.to_owned()),
    };
    Reply::ready(CreateAclsResponse { results: vec![refused; request.creations.len()], ..Default::default() })
}

pub(crate) fn delete(_: &RequestContext, request: DeleteAclsRequest) -> Reply<DeleteAclsResponse> {
    let refused = DeleteAclsFilterResult {
        error_code: ErrorCode::SECURITY_DISABLED,
        error_message: Some(NO_AUTHORIZER.to_owned()),
        ..Default::default()
    };
    Reply::ready(DeleteAclsResponse {
        filter_results: vec![refused; request.filters.len()],
        ..Default::default()
    })
}
