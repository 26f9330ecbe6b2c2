//! UpdateFeatures: the levels of features never change. A request for the current level succeeds.

use pelton_wire::ErrorCode;
use pelton_wire::message::update_features::{FeatureUpdateKey, UpdatableFeatureResult};
use pelton_wire::message::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::api_versions::FEATURES;
use super::context::RequestContext;
use super::reply::Reply;
use super::support::error_map::Refused;

/// Versions up to this one have a result for each feature.
const LISTS_UNTIL: i16 = 1;

pub(crate) fn handle(cx: &RequestContext, request: UpdateFeaturesRequest) -> Reply<UpdateFeaturesResponse> {
    let listed = cx.version <= LISTS_UNTIL;
    Reply::ready(match request.feature_updates.iter().try_for_each(check) {
        Ok(()) => {
            let unchanged = request.feature_updates.into_iter().filter(|_| listed);
            let results = unchanged.map(|update| UpdatableFeatureResult {
                feature: update.feature,
                error_message: None,
                ..Default::default()
            });
            UpdateFeaturesResponse { error_message: None, results: results.collect(), ..Default::default() }
        }
        // One failure fails all.
        Err(Refused { code, message }) => {
            UpdateFeaturesResponse { error_code: code, error_message: Some(message), ..Default::default() }
        }
    })
}

fn check(update: &FeatureUpdateKey) -> Result<(), Refused> {
    let FeatureUpdateKey { feature, max_version_level: asked, .. } = update;
    let why = match FEATURES.iter().find(|known| known.name == feature) {
        Some(known) if known.level == *asked => return Ok(()),
        Some(known) => {
            format!("`{feature}` cannot become {asked}: it is {} as long as this broker runs", known.level)
        }
        None => format!("`{feature}` cannot become {asked}: this broker has no such feature"),
    };
    Err(Refused::new(ErrorCode::INVALID_UPDATE_VERSION, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_so_already_can_be_asked_for() {
        let code = |feature: &str, level| {
            let update = FeatureUpdateKey {
                feature: feature.to_owned(),
                max_version_level: level,
                ..Default::default()
            };
            check(&update).map_err(|refused| refused.code)
        };
        assert_eq!(code("transaction.version", 2), Ok(()));
        for (feature, level) in [("transaction.version", 1), ("transaction.version", 3), ("share.version", 1)]
        {
            assert_eq!(code(feature, level), Err(ErrorCode::INVALID_UPDATE_VERSION), "{feature} {level}");
        }
    }
}
