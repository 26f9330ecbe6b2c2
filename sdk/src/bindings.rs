//! What `wit-bindgen` makes of the world `transform` in `wit/`.

wit_bindgen::generate!({
    path: "wit",
    world: "transform",
    pub_export_macro: true,
    export_macro_name: "export_world",
    default_bindings_module: "pelton_sdk::bindings",
});

pub use pelton::plugin::records::{HeaderColumns, Rejection, Slices};
