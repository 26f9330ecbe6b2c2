//! Sockets: taking connections, frames in, ordered responses out.

pub(crate) mod connection;
pub(crate) mod frame;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod request_memory;
mod residency;
pub(crate) mod send;
mod vitals;
