//! Sockets: taking connections, frames in, ordered responses out.

mod connection;
mod frame;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod request_memory;
mod residency;
mod send;
pub(crate) mod server;
mod transport;
mod vitals;
