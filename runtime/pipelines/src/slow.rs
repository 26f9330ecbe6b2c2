//! A factory for tests whose compilations take as long as the test wants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use pelton_streams::{
    BatchIn, BatchOut, Digest, InstanceSpec, InstantiateError, LoadError, Plugin, PluginError, PluginFactory,
    PluginInfo, World,
};

/// Compiles what begins with `slow` once it is let go, and panics over what begins with `panic`. Of what begins with `late`
/// the first instance starts at once, the others once they are let go.
#[derive(Default)]
pub struct SlowFactory {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    let_go: bool,
    compiling: usize,
    /// Late instances that wait.
    starting: usize,
    loaded: BTreeSet<Digest>,
    /// Of those that start late: whether one instance has started.
    late: BTreeMap<Digest, bool>,
}

impl SlowFactory {
    pub fn new() -> Arc<SlowFactory> {
        Arc::default()
    }

    /// Slow compilations end, from now on at once.
    pub fn let_go(&self) {
        self.state.lock().let_go = true;
        self.changed.notify_all();
    }

    /// Waits until so many late instances wait to start. Blocking.
    pub fn until_starting(&self, count: usize) {
        self.changed.wait_while(&mut self.state.lock(), |state| state.starting != count);
    }

    /// Waits until so many slow compilations are under way. Blocking.
    pub fn until_compiling(&self, count: usize) {
        self.changed.wait_while(&mut self.state.lock(), |state| state.compiling != count);
    }
}

fn info(digest: &Digest, component: &[u8]) -> PluginInfo {
    PluginInfo { digest: *digest, world: World::Transform, manifest: None, bytes: component.len() as u64 }
}

impl PluginFactory for SlowFactory {
    fn load(&self, digest: &Digest, component: &[u8]) -> Result<PluginInfo, LoadError> {
        assert!(!component.starts_with(b"panic"), "this component makes the compiler panic");
        let mut state = self.state.lock();
        if component.starts_with(b"slow") {
            state.compiling += 1;
            self.changed.notify_all();
            self.changed.wait_while(&mut state, |state| !state.let_go);
            state.compiling -= 1;
            self.changed.notify_all();
        }
        if component.starts_with(b"late") {
            state.late.insert(*digest, false);
        }
        state.loaded.insert(*digest);
        Ok(info(digest, component))
    }

    fn load_compiled(&self, digest: &Digest, component: &[u8]) -> Result<Option<PluginInfo>, LoadError> {
        Ok(self.state.lock().loaded.contains(digest).then(|| info(digest, component)))
    }

    fn loaded(&self) -> Vec<Digest> {
        self.state.lock().loaded.iter().copied().collect()
    }

    fn instantiate(&self, digest: &Digest, _: &InstanceSpec) -> Result<Box<dyn Plugin>, InstantiateError> {
        let mut state = self.state.lock();
        if !state.loaded.contains(digest) {
            return Err(InstantiateError::NotLoaded(*digest));
        }
        let started = state.late.get_mut(digest).map(|started| std::mem::replace(started, true));
        if started == Some(true) {
            state.starting += 1;
            self.changed.notify_all();
            self.changed.wait_while(&mut state, |state| !state.let_go);
            state.starting -= 1;
            self.changed.notify_all();
        }
        Ok(Box::new(Silent))
    }

    fn unload(&self, digest: &Digest) {
        self.state.lock().loaded.remove(digest);
    }
}

/// Answers nothing to everything.
struct Silent;

impl Plugin for Silent {
    fn process(&mut self, _: &BatchIn<'_>) -> Result<BatchOut, PluginError> {
        Ok(BatchOut::default())
    }
}
