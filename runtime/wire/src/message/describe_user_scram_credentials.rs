//! DescribeUserScramCredentials (key 50): which users have passwords for SCRAM.

use crate::error_code::ErrorCode;

messages! {
    api DescribeUserScramCredentials: DescribeUserScramCredentialsRequest => DescribeUserScramCredentialsResponse;

    /// The users: null means all.
    pub struct DescribeUserScramCredentialsRequest {
        users: Option<Vec<UserName>> = Some(Default::default()),
    }

    /// One user.
    pub struct UserName {
        name: String,
    }

    /// The users and what they have.
    pub struct DescribeUserScramCredentialsResponse {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        error_message: Option<String> = Some(Default::default()),
        results: Vec<DescribeUserScramCredentialsResult>,
    }

    /// One user.
    pub struct DescribeUserScramCredentialsResult {
        user: String,
        error_code: ErrorCode,
        error_message: Option<String> = Some(Default::default()),
        credential_infos: Vec<CredentialInfo>,
    }

    /// One password.
    pub struct CredentialInfo {
        mechanism: i8,
        iterations: i32,
    }
}
