//! DescribeClientQuotas: this broker has no quotas, so every valid filter matches none.

use std::collections::HashSet;

use pelton_wire::ErrorCode;
use pelton_wire::message::describe_client_quotas::ComponentData;
use pelton_wire::message::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use super::context::RequestContext;
use super::reply::Reply;
use super::support::error_map::Refused;

const IP: &str = "ip";
const ENTITY_TYPES: [&str; 3] = ["user", "client-id", IP];

/// Kafka's numbers of matches: this name, the default, any name.
const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const ANY: i8 = 2;

pub(crate) fn handle(
    _: &RequestContext,
    request: DescribeClientQuotasRequest,
) -> Reply<DescribeClientQuotasResponse> {
    Reply::ready(match check(&request.components) {
        Ok(()) => DescribeClientQuotasResponse::default(),
        Err(Refused { code, message }) => DescribeClientQuotasResponse {
            error_code: code,
            error_message: Some(message),
            entries: None,
            ..Default::default()
        },
    })
}

/// Refuses a filter that no quota could match.
fn check(components: &[ComponentData]) -> Result<(), Refused> {
    let invalid = |why: String| Err(Refused::new(ErrorCode::INVALID_REQUEST, why));
    let mut types = HashSet::new();
    for ComponentData { entity_type, match_type, r#match } in components {
        match (*match_type, r#match) {
            (EXACT, Some(_)) | (DEFAULT | ANY, None) => {}
            (EXACT, None) => return invalid(format!("an exact match of `{entity_type}` needs a name")),
            (DEFAULT | ANY, Some(_)) => {
                return invalid(format!("only an exact match of `{entity_type}` can have a name"));
            }
            (other, _) => return invalid(format!("there is no match type {other}")),
        }
        if entity_type.is_empty() {
            return invalid("an entity type is empty".to_owned());
        }
        if !ENTITY_TYPES.contains(&entity_type.as_str()) {
            let why = format!("there is no entity type `{entity_type}`: {} are", ENTITY_TYPES.join(", "));
            return Err(Refused::new(ErrorCode::UNSUPPORTED_VERSION, why));
        }
        if !types.insert(entity_type.as_str()) {
            return invalid(format!("the entity type `{entity_type}` is named twice"));
        }
    }
    if types.contains(IP) && types.len() > 1 {
        return invalid("quotas of addresses are neither users' nor clients'".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_match_nothing_possible_are_refused() {
        let component = |entity_type: &str, match_type, name: Option<&str>| ComponentData {
            entity_type: entity_type.to_owned(),
            match_type,
            r#match: name.map(str::to_owned),
        };
        let code = |all: &[ComponentData]| check(all).map_err(|refused| refused.code);
        assert_eq!(code(&[]), Ok(()));
        assert_eq!(code(&[component("user", ANY, None), component("client-id", EXACT, Some("c"))]), Ok(()));
        assert_eq!(code(&[component("ip", DEFAULT, None)]), Ok(()));
        assert_eq!(code(&[component("host", ANY, None)]), Err(ErrorCode::UNSUPPORTED_VERSION));
        for bad in [
            vec![component("user", EXACT, None)],
            vec![component("user", DEFAULT, Some("u"))],
            vec![component("user", 3, None)],
            vec![component("", ANY, None)],
            vec![component("user", ANY, None), component("user", DEFAULT, None)],
            vec![component("ip", ANY, None), component("user", ANY, None)],
        ] {
            assert_eq!(code(&bad), Err(ErrorCode::INVALID_REQUEST), "{bad:?}");
        }
    }
}
