//! What `wit-bindgen` makes of the worlds in `wit/`. A component has the imports of its own world alone: what it does not use is
//! left out.

wit_bindgen::generate!({
    path: "wit",
    world: "transform",
    pub_export_macro: true,
    export_macro_name: "export_world",
    default_bindings_module: "pelton_sdk::bindings",
});

pub use pelton::plugin::records::{Column, HeaderColumns, Rejection, Slices};

/// The world `transform-state`.
pub mod with_state {
    wit_bindgen::generate!({
        path: "wit",
        world: "transform-state",
        pub_export_macro: true,
        export_macro_name: "export_world",
        default_bindings_module: "pelton_sdk::bindings::with_state",
        with: {
            "pelton:plugin/records@0.1.0": crate::bindings::pelton::plugin::records,
            "pelton:plugin/log@0.1.0": crate::bindings::pelton::plugin::log,
        },
    });
}

/// The world `aggregator`.
#[allow(clippy::too_many_arguments, reason = "generated: what crosses the border is flat")]
pub mod aggregating {
    wit_bindgen::generate!({
        path: "wit",
        world: "aggregator",
        pub_export_macro: true,
        export_macro_name: "export_world",
        default_bindings_module: "pelton_sdk::bindings::aggregating",
        with: {
            "pelton:plugin/records@0.1.0": crate::bindings::pelton::plugin::records,
            "pelton:plugin/log@0.1.0": crate::bindings::pelton::plugin::log,
        },
    });
}

/// The world `partitioner`.
pub mod partitioning {
    wit_bindgen::generate!({
        path: "wit",
        world: "partitioner",
        pub_export_macro: true,
        export_macro_name: "export_world",
        default_bindings_module: "pelton_sdk::bindings::partitioning",
        with: {
            "pelton:plugin/records@0.1.0": crate::bindings::pelton::plugin::records,
            "pelton:plugin/log@0.1.0": crate::bindings::pelton::plugin::log,
        },
    });
}

/// The world `transform-timer`.
#[allow(clippy::too_many_arguments, reason = "generated: what crosses the border is flat")]
pub mod with_timers {
    wit_bindgen::generate!({
        path: "wit",
        world: "transform-timer",
        pub_export_macro: true,
        export_macro_name: "export_world",
        default_bindings_module: "pelton_sdk::bindings::with_timers",
        with: {
            "pelton:plugin/records@0.1.0": crate::bindings::pelton::plugin::records,
            "pelton:plugin/log@0.1.0": crate::bindings::pelton::plugin::log,
            "pelton:plugin/state@0.1.0": crate::bindings::with_state::pelton::plugin::state,
        },
    });
}

/// The world `consumer`.
pub mod consuming {
    wit_bindgen::generate!({
        path: "wit",
        world: "consumer",
        pub_export_macro: true,
        export_macro_name: "export_world",
        default_bindings_module: "pelton_sdk::bindings::consuming",
        with: {
            "pelton:plugin/records@0.1.0": crate::bindings::pelton::plugin::records,
            "pelton:plugin/log@0.1.0": crate::bindings::pelton::plugin::log,
        },
    });
}

/// The world `consumer-http`.
pub mod sending {
    wit_bindgen::generate!({
        path: "wit",
        world: "consumer-http",
        pub_export_macro: true,
        export_macro_name: "export_world",
        default_bindings_module: "pelton_sdk::bindings::sending",
        with: {
            "pelton:plugin/records@0.1.0": crate::bindings::pelton::plugin::records,
            "pelton:plugin/log@0.1.0": crate::bindings::pelton::plugin::log,
            "pelton:plugin/consuming@0.1.0": crate::bindings::consuming::pelton::plugin::consuming,
        },
    });
}
