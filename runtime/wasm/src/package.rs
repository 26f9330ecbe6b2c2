//! A component as a file: its digest, the `plugin.toml` inside it, and what it imports and exports.

use pelton_streams::{Digest, PluginManifest, World};
use sha2::{Digest as _, Sha256};
use wasmparser::{Parser, Payload};
use wit_parser::{WorldItem, WorldKey};

use crate::limits::MAX_PLUGIN_TOML_BYTES;

/// The custom section of a component that holds its `plugin.toml`.
pub(crate) const MANIFEST_SECTION: &str = "pelton:plugin.toml";

/// The error for bytes without WebAssembly's magic.
pub(crate) const NOT_WASM: &str = "it is not WebAssembly; `pelton plugin build` makes components";

/// A component's digest, world, imports, exports and manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The sha256 of its bytes, which names it.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// The world it was built for: from its `plugin.toml`, else guessed from its exports.
    pub world: Option<String>,
    /// What it imports, types aside: `pelton:plugin/log@0.1.0`.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// Its `plugin.toml`.
    pub manifest: Option<PluginManifest>,
}

/// Bytes that are no component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// A core module.
    #[error("this is a core module, not a component; `pelton plugin build` makes components")]
    CoreModule,
    /// Not WebAssembly, a WIT package, or damaged.
    #[error("this is not a component: {0}")]
    NotAComponent(String),
    /// Its `plugin.toml` cannot be read.
    #[error("the plugin.toml inside the component is not valid: {0}")]
    Manifest(String),
}

/// The sha256 of a component's bytes, which names it.
pub fn digest(component: &[u8]) -> Digest {
    Digest::new(Sha256::digest(component).into())
}

/// Reads a component, without compiling it.
///
/// # Errors
/// The bytes are not a component.
pub fn inspect(component: &[u8]) -> Result<Inspection, InspectError> {
    if Parser::is_core_wasm(component) {
        return Err(InspectError::CoreModule);
    }
    if !Parser::is_component(component) {
        return Err(InspectError::NotAComponent(NOT_WASM.to_owned()));
    }
    let decoded = wit_parser::decoding::decode(component)
        .map_err(|error| InspectError::NotAComponent(format!("{error:#}")))?;
    let wit_parser::decoding::DecodedWasm::Component(resolve, world) = decoded else {
        return Err(InspectError::NotAComponent("it is a WIT package".to_owned()));
    };
    let world = &resolve.worlds[world];
    let named = |(key, item): (&WorldKey, &WorldItem)| {
        let name = resolve.name_world_key(key);
        match item {
            WorldItem::Type { .. } => None,
            WorldItem::Interface { id, .. } if resolve.interfaces[*id].functions.is_empty() => None,
            WorldItem::Interface { .. } | WorldItem::Function(_) => Some(name),
        }
    };
    let exports: Vec<String> = world.exports.iter().filter_map(named).collect();
    let manifest = manifest(component).map_err(InspectError::Manifest)?;
    let guessed = || World::guess(|name| exports.iter().any(|export| export == name));
    let world_name =
        manifest.as_ref().map(|m| m.world.clone()).or_else(|| guessed().map(|world| world.to_string()));
    Ok(Inspection {
        digest: digest(component),
        bytes: component.len() as u64,
        world: world_name,
        imports: world.imports.iter().filter_map(named).collect(),
        exports,
        manifest,
    })
}

/// The `plugin.toml` inside a component.
pub(crate) fn manifest(component: &[u8]) -> Result<Option<PluginManifest>, String> {
    let Some(text) = section(component).map_err(|error| error.to_string())? else { return Ok(None) };
    if text.len() > MAX_PLUGIN_TOML_BYTES {
        return Err(format!("it has {} bytes, but at most {MAX_PLUGIN_TOML_BYTES} are allowed", text.len()));
    }
    let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
    PluginManifest::parse(text).map(Some).map_err(|error| error.to_string())
}

/// Puts a `plugin.toml` into a component that has none.
pub(crate) fn with_manifest(mut component: Vec<u8>, plugin_toml: &str) -> Vec<u8> {
    use wasm_encoder::Encode;
    let section =
        wasm_encoder::CustomSection { name: MANIFEST_SECTION.into(), data: plugin_toml.as_bytes().into() };
    // The id of custom sections; `encode` writes what follows it.
    component.push(0);
    section.encode(&mut component);
    component
}

/// The section of the component itself, not of a module inside it.
fn section(component: &[u8]) -> Result<Option<&[u8]>, wasmparser::BinaryReaderError> {
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if depth == 0 && section.name() == MANIFEST_SECTION => {
                return Ok(Some(section.data()));
            }
            _ => {}
        }
    }
    Ok(None)
}
