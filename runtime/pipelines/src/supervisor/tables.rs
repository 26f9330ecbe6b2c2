//! The definitions of tables that stand alone. They are kept here, with all that is deployed; what runs them is told
//! by who defines them.

use pelton_streams::Manifest;
use pelton_streams::tables::TableDefinition;

use super::Supervisor;
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
