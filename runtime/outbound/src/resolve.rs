//! Names are looked up by the machine, which may take long and cannot be interrupted: so many at once, and of each node so many.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tokio::sync::Semaphore;

/// Look-ups at once, of all nodes: each takes a thread.
pub(crate) const LOOK_UPS: usize = 16;
/// Those of one node: names that nobody answers for hold up the others of their node alone.
const LOOK_UPS_PER_NODE: usize = 4;

/// Says which addresses a name has.
type Look = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// See the module.
#[derive(Clone)]
pub(crate) struct Resolver {
    look: Arc<Look>,
    all: Arc<Semaphore>,
    of_node: Arc<Semaphore>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("left", &self.all.available_permits()).finish_non_exhaustive()
    }
}

impl Resolver {
    pub(crate) fn new(
        look: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Resolver {
        let (all, of_node) = (Semaphore::new(LOOK_UPS), Semaphore::new(LOOK_UPS_PER_NODE));
        Resolver { look: Arc::new(look), all: Arc::new(all), of_node: Arc::new(of_node) }
    }

    /// As the machine has it.
    pub(crate) fn of_machine() -> Resolver {
        Resolver::new(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }

    /// The same, for another node.
    pub(crate) fn of_node(&self) -> Resolver {
        Resolver { of_node: Arc::new(Semaphore::new(LOOK_UPS_PER_NODE)), ..self.clone() }
    }

    /// The addresses of a name. Whoever does not wait for them any more leaves a thread behind until they are there, and it counts
    /// until then.
    pub(crate) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let closed = |_| io::Error::other("nothing is looked up any more");
        let of_node = Arc::clone(&self.of_node).acquire_owned().await.map_err(closed)?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.map_err(closed)?;
        let (look, host) = (Arc::clone(&self.look), host.to_owned());
        let looked_up = tokio::task::spawn_blocking(move || {
            let found = look(&host, port);
            drop((of_node, of_all));
            found
        });
        looked_up.await.map_err(io::Error::other)?
    }
}
