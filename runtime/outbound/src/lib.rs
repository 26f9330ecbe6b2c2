//! What leaves the server for plugins: requests over HTTP, to hosts that a pipeline grants, with secrets of the server's.
//!
//! [`Outbound`] makes a client for each node of a pipeline that may send ([`pelton_streams::http`] decides what that is). Its
//! connections are its own: one that was made for a node is never used for another, which may be granted less.
//!
//! What holds for each request:
//!
//! 1. Its URL is read once, by the type that the connection is made with: there are no two readers that could differ.
//! 2. Its host is granted by name before it is looked up, and each address before a connection is made to it. The connection is
//!    made to that address: nothing is looked up twice.
//! 3. A redirect is handed to the plugin, unless the node follows some: then each is the same request to another place, asked about
//!    as the first, and what authorizes is sent to the same origin alone. One that leads where nothing is granted is handed on.
//! 4. There is no proxy, whatever the environment says: it would look names up itself.
//! 5. It takes at most its time, and its answer at most its bytes, headers among them. What waits for its turn waits at most as long
//!    as its call may send.
//! 6. What comes back has no secrets of the node in it: a server may tell what it was told.
//!
//! In memory there are at most so many bytes of answers: sixteen times `http.response` for each call under way (`deliver.threads`,
//! in each of the pipeline's `threads`), and a buffer of 64 KiB for each connection.
//!
//! Requests run on a small runtime of their own, so that neither a slow look-up nor many handshakes hold up clients of the
//! broker.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use pelton_streams::http::{HttpClient, HttpSpec, Network, NetworkError};
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::{Builder, Runtime};

use crate::client::Client;
use crate::resolve::{LOOK_UPS, Resolver};
use crate::secrets::Secrets;

mod checked;
mod client;
mod connect;
mod redirect;
mod resolve;
mod secrets;
#[cfg(test)]
mod tests;

/// Threads that drive connections.
const THREADS: usize = 1;

/// Sends for all pipelines of a process.
#[derive(Debug)]
pub struct Outbound {
    secrets: Secrets,
    resolver: Resolver,
    /// Made when the first node may send.
    runtime: OnceLock<Runtime>,
    tls: OnceLock<Arc<ClientConfig>>,
}

impl Outbound {
    /// With the secrets of a directory, and those of the environment.
    pub fn new(secrets: PathBuf) -> Outbound {
        Outbound::with(secrets, Resolver::of_machine())
    }

    fn with(secrets: PathBuf, resolver: Resolver) -> Outbound {
        Outbound { secrets: Secrets::new(secrets), resolver, runtime: OnceLock::new(), tls: OnceLock::new() }
    }

    fn runtime(&self) -> Result<&Runtime, NetworkError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(THREADS).max_blocking_threads(LOOK_UPS).thread_name("outbound").enable_all();
        let made = builder
            .build()
            .map_err(|error| NetworkError::Unavailable(format!("its threads do not start: {error}")))?;
        // Another one may have been quicker; this one ends then.
        Ok(self.runtime.get_or_init(|| made))
    }

    /// The certificates of the machine's authorities, read once.
    fn tls(&self) -> Result<Arc<ClientConfig>, NetworkError> {
        if let Some(tls) = self.tls.get() {
            return Ok(Arc::clone(tls));
        }
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a file with certificates of authorities cannot be read");
        }
        let mut roots = RootCertStore::empty();
        let (taken, ignored) = roots.add_parsable_certificates(found.certs);
        if taken == 0 {
            tracing::warn!(
                ignored,
                "no certificate of an authority was found, so requests over https fail; install ca-certificates, or name a file \
                 with SSL_CERT_FILE"
            );
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| NetworkError::Unavailable(error.to_string()))?;
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        Ok(Arc::clone(self.tls.get_or_init(|| config)))
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A look-up cannot be interrupted, and nobody waits for it any more.
            runtime.shutdown_background();
        }
    }
}

impl Network for Outbound {
    fn client(&self, spec: &HttpSpec) -> Result<Arc<dyn HttpClient>, NetworkError> {
        let secrets = self.secrets.of(spec)?;
        let handle = self.runtime()?.handle().clone();
        Ok(Arc::new(Client::new(spec, secrets, (self.tls()?, self.resolver.of_node()), handle)))
    }
}
