//! The operations on Azure Tables, one request each.

use crate::errors::Failure;
use crate::options::TablesAccess;
use crate::sdk::http::{failure, options};
use crate::sdk::tokens::Tokens;
use crate::transport::{Transport, noting};
use azure_core_legacy as legacy;
use azure_data_tables::clients::TableServiceClientBuilder;
use azure_data_tables::operations::InsertEntityResponse;
use azure_data_tables::prelude::*;
use azure_data_tables::{Filter, IfMatchCondition, Top};
use azure_storage::{CloudLocation, StorageCredentials};
use boxpool::Result;
use futures::StreamExt;
use legacy::prelude::Continuable;
use serde::{Deserialize, Serialize};

/// A row as it is stored. Its key is encoded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    #[serde(rename = "PartitionKey")]
    pub(crate) partition: String,
    #[serde(rename = "RowKey")]
    pub(crate) row: String,
    /// The record.
    pub(crate) value: String,
    /// Unique for each write: tells a writer whose answer was lost that the write was its own.
    #[serde(default)]
    pub(crate) mark: String,
    #[serde(rename = "odata.etag", skip_serializing, default)]
    pub(crate) etag: String,
}

/// Where a query goes on: what the service returned, and nothing else.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Token(String, Option<String>);

/// A client of one storage account.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    service: TableServiceClient,
}

impl Tables {
    pub(crate) fn open(account: &str, endpoint: &str, access: &TablesAccess, transport: &Transport) -> Result<Self> {
        let credentials = match access {
            TablesAccess::Key(key) => StorageCredentials::access_key(account.to_owned(), key.reveal().to_owned()),
            TablesAccess::Identity(choice) => {
                StorageCredentials::token_credential(Tokens::open(choice.clone(), transport)?)
            }
        };
        let location =
            CloudLocation::Custom { account: account.to_owned(), uri: endpoint.trim_end_matches('/').to_owned() };
        let service =
            TableServiceClientBuilder::with_location(location, credentials).client_options(options(transport)).build();
        Ok(Self { service })
    }

    pub(crate) async fn create(&self, table: &str) -> Result<(), Failure> {
        noting(self.service.table_client(table).create().into_future(), failure).await.map(drop)
    }

    pub(crate) async fn drop(&self, table: &str) -> Result<(), Failure> {
        noting(self.service.table_client(table).delete().into_future(), failure).await.map(drop)
    }

    pub(crate) async fn get(&self, table: &str, partition: &str, row: &str) -> Result<Row, Failure> {
        let found = noting(self.entity(table, partition, row).get::<Row>().into_future(), failure).await?;
        Ok(Row { etag: found.etag.to_string(), ..found.entity })
    }

    pub(crate) async fn insert(&self, table: &str, row: &Row) -> Result<String, Failure> {
        let insert = self.service.table_client(table).insert::<_, serde_json::Value>(row).map_err(failure)?;
        let inserted: InsertEntityResponse<_> = noting(insert.into_future(), failure).await?;
        Ok(inserted.etag.to_string())
    }

    pub(crate) async fn update(&self, table: &str, row: &Row, etag: &str) -> Result<String, Failure> {
        let condition = IfMatchCondition::Etag(etag.to_owned().into());
        let update = self.entity(table, &row.partition, &row.row).update(row, condition).map_err(failure)?;
        Ok(noting(update.into_future(), failure).await?.etag.to_string())
    }

    pub(crate) async fn delete(&self, table: &str, partition: &str, row: &str, etag: &str) -> Result<(), Failure> {
        // Without a condition the crate would delete whatever is there.
        let condition = IfMatchCondition::Etag(etag.to_owned().into());
        let delete = self.entity(table, partition, row).delete().if_match(condition);
        noting(delete.into_future(), failure).await.map(drop)
    }

    /// One page of at most `top` rows; it may be empty although there is more.
    pub(crate) async fn page(
        &self,
        table: &str,
        partition: Option<&str>,
        from: Option<&Token>,
        top: usize,
    ) -> Result<(Vec<Row>, Option<Token>), Failure> {
        let mut query = self.service.table_client(table).query().top(Top::new(u32::try_from(top).unwrap_or(u32::MAX)));
        if let Some(partition) = partition {
            query = query.filter(Filter::new(format!("PartitionKey eq '{partition}'")));
        }
        if let Some(Token(partition, row)) = from {
            query = query.initial_partition_key(partition.clone());
            if let Some(row) = row {
                query = query.initial_row_key(row.clone());
            }
        }
        let first = async { query.into_stream::<Row>().next().await.transpose() };
        let page = noting(first, failure).await?;
        let Some(page) = page else { return Ok((Vec::new(), None)) };
        let next = page.continuation().map(|(partition, row)| Token(partition, row));
        Ok((page.entities, next))
    }

    fn entity(&self, table: &str, partition: &str, row: &str) -> EntityClient {
        self.service.table_client(table).partition_key_client(partition).entity_client(row)
    }
}
