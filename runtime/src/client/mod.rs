//! A small blocking Kafka client for admin commands, over our own codec. Producing and consuming go through
//! librdkafka instead.

pub(crate) mod http;
pub(crate) mod offsets;

use crate::report::{Exit, Failure, failed};
use anyhow::Context;
use bytes::Bytes;
use pelton_wire::api::{self, ApiKey};
use pelton_wire::codec::{Reader, Writer};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::header::{RequestHeader, ResponseHeader};
use pelton_wire::message::api_versions::ApiVersionsRequest;
use pelton_wire::message::find_coordinator::FindCoordinatorRequest;
use pelton_wire::{Message, Request};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than any admin operation of a healthy broker.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// A larger response is refused.
const RESPONSE_BYTES_MAX: usize = 256 << 20;
const CLIENT_ID: &str = "pelton";

/// One connection to one broker.
pub(crate) struct Client {
    stream: TcpStream,
    address: String,
    correlation_id: i32,
    /// The broker's versions, by api key.
    versions: HashMap<i16, (i16, i16)>,
}

impl Client {
    /// Connects and asks which versions the broker speaks.
    pub(crate) fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = open(address)?;
        let mut client =
            Self { stream, address: address.to_owned(), correlation_id: 0, versions: HashMap::new() };
        let request = ApiVersionsRequest {
            client_software_name: CLIENT_ID.to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        };
        let response = client.exchange(&request, 3)?;
        check(response.error_code, "ask the broker for its versions")?;
        client.versions =
            response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        Ok(client)
    }

    /// Sends a request at the highest version that both sides speak, and waits for its response.
    pub(crate) fn send<R: Request>(&mut self, request: &R) -> anyhow::Result<R::Response> {
        self.send_at_most(request, i16::MAX)
    }

    /// The same, but at most at a version, for requests whose newer versions have other fields.
    pub(crate) fn send_at_most<R: Request>(
        &mut self,
        request: &R,
        newest: i16,
    ) -> anyhow::Result<R::Response> {
        let ours = api::range(R::KEY);
        let Some(&(min, max)) = self.versions.get(&(R::KEY as i16)) else {
            return Err(failed(format!("the broker at {} does not offer {}", self.address, R::KEY.name())));
        };
        let version = ours.max.min(max).min(newest);
        if version < ours.min_decoded.max(min) {
            return Err(failed(format!(
                "the broker at {} speaks versions {min} to {max} of {}, this program {} to {}",
                self.address,
                R::KEY.name(),
                ours.min_decoded,
                ours.max.min(newest)
            )));
        }
        self.exchange(request, version)
    }

    fn exchange<R: Request>(&mut self, request: &R, version: i16) -> anyhow::Result<R::Response> {
        self.correlation_id += 1;
        let mut writer = Writer::framed();
        RequestHeader {
            api_key: R::KEY,
            api_version: version,
            correlation_id: self.correlation_id,
            client_id: Some(CLIENT_ID.to_owned()),
        }
        .encode(&mut writer)
        .context("encode a request header")?;
        request.encode(&mut writer, version).context("encode a request")?;
        let frame = writer.into_bytes().context("encode a request")?;
        let what = || format!("talk to the broker at {}", self.address);
        self.stream.write_all(&frame).with_context(what)?;
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).with_context(what)?;
        let length = usize::try_from(i32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
        if length > RESPONSE_BYTES_MAX {
            return Err(failed(format!(
                "{}: it announced a response of {length} bytes, more than {RESPONSE_BYTES_MAX}",
                what()
            )));
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).with_context(what)?;
        self.decode::<R>(R::KEY, version, body.into())
    }

    fn decode<R: Request>(&self, key: ApiKey, version: i16, body: Bytes) -> anyhow::Result<R::Response> {
        let mut reader = Reader::new(body);
        let header = ResponseHeader::decode(&mut reader, key, version).context("decode a response header")?;
        if header.correlation_id != self.correlation_id {
            return Err(failed(format!(
                "the broker at {} sent the response to request {} instead of {}",
                self.address, header.correlation_id, self.correlation_id
            )));
        }
        R::Response::decode(&mut reader, version)
            .with_context(|| format!("decode the response to {}", key.name()))
    }

    /// Connects to the coordinator of a group.
    pub(crate) fn coordinator(&mut self, group: &str) -> anyhow::Result<Self> {
        let request = FindCoordinatorRequest {
            key: group.to_owned(),
            coordinator_keys: vec![group.to_owned()],
            ..Default::default()
        };
        // v4 and later have a list of keys, older ones one key: the encoder takes the field of its version.
        let newest = self.versions.get(&(ApiKey::FindCoordinator as i16)).map_or(0, |range| range.1);
        let request = if newest >= 4 {
            FindCoordinatorRequest { key: String::new(), ..request }
        } else {
            FindCoordinatorRequest { coordinator_keys: Vec::new(), ..request }
        };
        let response = self.send(&request)?;
        let (error, host, port) = match response.coordinators.first() {
            Some(found) => (found.error_code, found.host.clone(), found.port),
            None => (response.error_code, response.host, response.port),
        };
        check(error, &format!("find the coordinator of group `{group}`"))?;
        Self::connect(&format!("{host}:{port}"))
    }
}

fn open(address: &str) -> anyhow::Result<TcpStream> {
    let unreachable = |why: String| {
        Failure::new(Exit::Unreachable, format!("no broker answers at {address}: {why}"))
            .hint("is `pelton serve` running? --bootstrap-server says where")
    };
    let candidates = address.to_socket_addrs().map_err(|error| unreachable(error.to_string()))?;
    let mut last = "the name has no address".to_owned();
    for candidate in candidates {
        match TcpStream::connect_timeout(&candidate, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true).context("set TCP_NODELAY")?;
                stream.set_read_timeout(Some(RESPONSE_TIMEOUT)).context("set a read timeout")?;
                return Ok(stream);
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(unreachable(last).into())
}

/// An error code of a response as an error.
pub(crate) fn check(code: ErrorCode, what: &str) -> anyhow::Result<()> {
    check_with(code, None, what)
}

/// The same, with the broker's message if it sent one.
pub(crate) fn check_with(code: ErrorCode, message: Option<&str>, what: &str) -> anyhow::Result<()> {
    if code == ErrorCode::NONE {
        return Ok(());
    }
    Err(failed(match message {
        Some(message) => format!("{what}: {message} ({})", code.name()),
        None => format!("{what}: {}", code.name()),
    }))
}
