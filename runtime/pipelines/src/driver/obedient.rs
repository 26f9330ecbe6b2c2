//! A plugin that does what its records tell it to, for tests.

use std::sync::Arc;

use pelton_streams::{
    BatchIn, BatchOut, Digest, InstanceSpec, InstantiateError, LoadError, Plugin, PluginError, PluginFactory,
    PluginInfo,
};

use crate::io::StopSignal;

/// Passes everything on, but for values that say what should go wrong.
struct Obedient(Arc<StopSignal>);

impl Plugin for Obedient {
    fn process(&mut self, batch: &BatchIn<'_>) -> Result<BatchOut, PluginError> {
        let mut source = Vec::new();
        for (i, record) in batch.records().enumerate() {
            match record.value {
                Some(b"trap") => {
                    return Err(PluginError::Trapped { trap: "unreachable".to_owned(), said: None });
                }
                Some(b"drop") => {}
                Some(b"late and stopped") => {
                    self.0.set();
                    return Err(PluginError::Deadline { deadline_ms: 1 });
                }
                _ => source.push(i as u32),
            }
        }
        Ok(BatchOut { source, ..BatchOut::default() })
    }
}

/// Makes [`Obedient`]s.
pub(super) struct Factory(pub(super) Arc<StopSignal>);

impl PluginFactory for Factory {
    fn load(&self, _digest: &Digest, _component: &[u8]) -> Result<PluginInfo, LoadError> {
        unreachable!("the tests link their topologies themselves")
    }

    fn instantiate(
        &self,
        _digest: &Digest,
        _spec: &InstanceSpec,
    ) -> Result<Box<dyn Plugin>, InstantiateError> {
        Ok(Box::new(Obedient(Arc::clone(&self.0))))
    }

    fn unload(&self, _digest: &Digest) {}
}

pub(super) fn obedient() -> PluginInfo {
    PluginInfo {
        digest: Digest::new([1; 32]),
        world: pelton_streams::World::Transform,
        manifest: None,
        bytes: 1,
    }
}
