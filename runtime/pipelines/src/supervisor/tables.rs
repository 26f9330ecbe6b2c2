//! The definitions of tables that stand alone. They are kept here, with all that is deployed; what runs them is told
//! by who defines them.

use std::collections::BTreeSet;
use std::sync::Arc;

use pelton_streams::manifest::operator::{GlobalOf, GlobalSpec};
use pelton_streams::tables::TableDefinition;
use pelton_streams::{Manifest, Topology};

use super::{Supervisor, to_its_end};
use crate::deployments::table_record;
use crate::refusal::{DefineTableError, DeployError};

impl Supervisor {
    /// The tables that are defined, by name.
    pub fn tables(&self) -> Vec<(String, TableDefinition)> {
        let inner = self.inner.lock();
        inner.deployments.tables().iter().map(|(name, table)| (name.clone(), table.clone())).collect()
    }

    /// Defines a table, or with `None` makes its definition go away. Durable when it returns.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn define_table(
        self: &Arc<Self>,
        name: &str,
        definition: Option<&TableDefinition>,
    ) -> Result<(), DefineTableError> {
        let (this, name, definition) = (Arc::clone(self), name.to_owned(), definition.cloned());
        to_its_end(async move { this.store_table(&name, definition.as_ref()).await }).await
    }

    async fn store_table(
        &self,
        name: &str,
        definition: Option<&TableDefinition>,
    ) -> Result<(), DefineTableError> {
        let _change = self.changes.lock().await;
        if definition.is_some()
            && let Some(pipeline) = self.table_owner(name, "")
        {
            return Err(DefineTableError::Taken(pipeline));
        }
        if definition.is_none()
            && let Some(pipeline) = self.table_reader(name)
        {
            return Err(DefineTableError::Read(pipeline));
        }
        self.store(vec![table_record(name, definition)]).await?;
        self.tidy().await;
        Ok(())
    }

    /// The pipeline besides `but` that calls what one of its nodes keeps so.
    fn table_owner(&self, table: &str, but: &str) -> Option<String> {
        let inner = self.inner.lock();
        let mut others = inner.deployments.live().filter(|(name, _, _)| *name != but);
        let has_table = |manifest: &str| {
            let manifest = Manifest::parse(manifest);
            let operators = manifest.map(|manifest| manifest.operators).unwrap_or_default();
            operators.iter().any(|operator| operator.table.as_deref() == Some(table))
        };
        others.find(|(_, _, revision)| has_table(&revision.manifest)).map(|(name, _, _)| name.to_owned())
    }

    /// A pipeline that reads a table that stands alone, by its name.
    fn table_reader(&self, table: &str) -> Option<String> {
        let inner = self.inner.lock();
        let reads = |manifest: &str| {
            let globals = Manifest::parse(manifest).map(|manifest| manifest.globals).unwrap_or_default();
            globals.iter().any(|global| matches!(&global.of, GlobalOf::Table(name) if name == table))
        };
        let mut live = inner.deployments.live();
        live.find(|(_, _, revision)| reads(&revision.manifest)).map(|(name, _, _)| name.to_owned())
    }

    /// The topics that deployed pipelines read as global tables.
    pub fn copied_topics(&self) -> BTreeSet<String> {
        let inner = self.inner.lock();
        let topic = |global: GlobalSpec| match global.of {
            GlobalOf::Topic(topic) => Some(topic),
            GlobalOf::Table(_) => None,
        };
        let live = inner.deployments.live();
        let manifests = live.filter_map(|(_, _, revision)| Manifest::parse(&revision.manifest).ok());
        manifests.flat_map(|manifest| manifest.globals.into_iter().filter_map(topic)).collect()
    }

    /// Copies of what deployed pipelines read are kept, paused or not.
    pub(super) async fn keep_copies(&self) {
        let topics = self.copied_topics();
        self.spec.globals.keep(topics).await;
    }

    /// Whether all global tables of a pipeline can be read.
    pub(super) fn check_globals(&self, topology: &Topology) -> Result<(), DeployError> {
        for global in &topology.globals {
            let refused = |why| DeployError::Global { table: global.id.clone(), why };
            self.spec.globals.check(&global.of).map_err(refused)?;
        }
        Ok(())
    }

    /// Whether what a pipeline keeps is called as nothing else is.
    pub(super) fn check_tables(&self, manifest: &Manifest) -> Result<(), DeployError> {
        for operator in &manifest.operators {
            let Some(table) = &operator.table else { continue };
            let topic = self.inner.lock().deployments.tables().get(table).map(|table| table.topic.clone());
            let by = match (self.table_owner(table, &manifest.name), topic) {
                (Some(pipeline), _) => format!("pipeline `{pipeline}`"),
                (None, Some(topic)) => format!("the table of topic `{topic}`"),
                (None, None) => continue,
            };
            return Err(DeployError::TableTaken { node: operator.id.clone(), table: table.clone(), by });
        }
        Ok(())
    }
}
