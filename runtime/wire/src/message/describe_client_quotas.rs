//! DescribeClientQuotas (key 48): the quotas of users, clients and addresses.

use crate::codec::Float64;
use crate::error_code::ErrorCode;

messages! {
    api DescribeClientQuotas: DescribeClientQuotasRequest => DescribeClientQuotasResponse;

    /// What the quotas must match; strict: and nothing else.
    pub struct DescribeClientQuotasRequest {
        components: Vec<ComponentData>,
        strict: bool,
    }

    /// Part of a name (match type 0: exactly this, 1: the default, 2: any).
    pub struct ComponentData {
        entity_type: String,
        match_type: i8,
        r#match: Option<String> = Some(Default::default()),
    }

    /// The quotas that match.
    pub struct DescribeClientQuotasResponse {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        error_message: Option<String> = Some(Default::default()),
        entries: Option<Vec<EntryData>> = Some(Default::default()),
    }

    /// Quotas of one entity.
    pub struct EntryData {
        entity: Vec<EntityData>,
        values: Vec<ValueData>,
    }

    /// Part of a name; null is the default.
    pub struct EntityData {
        entity_type: String,
        entity_name: Option<String> = Some(Default::default()),
    }

    /// One quota.
    pub struct ValueData {
        key: String,
        value: Float64,
    }
}
