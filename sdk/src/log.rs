//! Lines for `pelton pipeline logs`. A call may write 100 lines of 1 KiB; what is over is dropped and counted. Outside
//! of a server, as in unit tests, lines go to standard error.

/// For the author of the plugin.
pub fn debug(text: &str) {
    write(Level::Debug, text);
}

/// Normal progress.
pub fn info(text: &str) {
    write(Level::Info, text);
}

/// Something was odd, and was dealt with.
pub fn warn(text: &str) {
    write(Level::Warn, text);
}

/// Something failed.
pub fn error(text: &str) {
    write(Level::Error, text);
}

use crate::bindings::pelton::plugin::log::Level;

#[cfg(target_arch = "wasm32")]
fn write(level: Level, text: &str) {
    crate::bindings::pelton::plugin::log::write(level, text);
}

#[cfg(not(target_arch = "wasm32"))]
#[expect(clippy::print_stderr, reason = "there is no host to tell")]
fn write(level: Level, text: &str) {
    eprintln!("{level:?}: {text}");
}

/// Sends the text of a panic to the log: without it, a trap says `unreachable` and nothing else.
#[doc(hidden)]
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| error(&info.to_string())));
}
