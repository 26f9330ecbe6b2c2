//! The definitions of tables that stand alone. They are kept here, with all that is deployed; what runs them is told
//! by who defines them.

use pelton_streams::tables::TableDefinition;

use super::Supervisor;
use crate::deployments::table_record;
use crate::refusal::DeploymentLogError;

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
    ) -> Result<(), DeploymentLogError> {
        let _change = self.changes.lock().await;
        self.store(vec![table_record(name, definition)]).await?;
        self.tidy().await;
        Ok(())
    }
}
