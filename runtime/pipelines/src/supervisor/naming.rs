//! Which components and topics of its own a manifest means.

use std::collections::BTreeMap;

use pelton_streams::manifest::PluginRef;
use pelton_streams::topology::OutputTopic;
use pelton_streams::{Digest, Topology};

use super::Repartition;
use crate::deployments::{Deployments, Revision};
use crate::refusal::DeployError;

/// The plugins of a revision.
pub(super) fn given(revision: &Revision) -> BTreeMap<String, Digest> {
    let plugins = revision.plugins.iter();
    plugins.filter_map(|(node, digest)| Some((node.clone(), digest.parse().ok()?))).collect()
}

pub(super) fn repartitions_of(topology: &Topology) -> Vec<Repartition> {
    let topic = |output: &OutputTopic| {
        Some(Repartition { topic: output.topic.clone(), partitions: output.repartition? })
    };
    topology.outputs.iter().filter_map(topic).collect()
}

pub(super) fn resolve(
    deployments: &Deployments,
    (node, named): (&str, &PluginRef),
    given: &BTreeMap<String, Digest>,
) -> Result<Digest, DeployError> {
    if let Some(digest) = given.get(node) {
        return Ok(*digest);
    }
    match named {
        PluginRef::Pinned { digest, .. } => Ok(*digest),
        PluginRef::Name(name) => {
            let newest = deployments.newest(name).and_then(|hex| format!("sha256:{hex}").parse().ok());
            newest.ok_or_else(|| DeployError::UnknownPlugin { node: node.to_owned(), plugin: name.clone() })
        }
    }
}
