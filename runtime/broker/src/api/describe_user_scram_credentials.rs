//! DescribeUserScramCredentials: this broker has no SASL, so no user has credentials.

use std::collections::HashMap;

use pelton_wire::ErrorCode;
use pelton_wire::message::describe_user_scram_credentials::{DescribeUserScramCredentialsResult, UserName};
use pelton_wire::message::{DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse};

use super::context::RequestContext;
use super::reply::Reply;
use super::support::once::each_once;

pub(crate) fn handle(
    _: &RequestContext,
    request: DescribeUserScramCredentialsRequest,
) -> Reply<DescribeUserScramCredentialsResponse> {
    let asked = request.users.unwrap_or_default();
    let mut times: HashMap<String, u32> = HashMap::new();
    for user in &asked {
        *times.entry(user.name.clone()).or_default() += 1;
    }
    let results = each_once(asked, |user| user.name.clone()).into_iter().map(|UserName { name: user }| {
        let (error_code, why) = if times.get(&user).is_some_and(|times| *times > 1) {
            (ErrorCode::DUPLICATE_RESOURCE, format!("the user `{user}` is named twice"))
        } else {
            (ErrorCode::RESOURCE_NOT_FOUND, format!("the user `{user}` has no password"))
        };
        DescribeUserScramCredentialsResult {
            user,
            error_code,
            error_message: Some(why),
            ..Default::default()
        }
    });
    Reply::ready(DescribeUserScramCredentialsResponse { results: results.collect(), ..Default::default() })
}
