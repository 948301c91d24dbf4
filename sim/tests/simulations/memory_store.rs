//! The memory store keeps every promise; a store that breaks one is found out.

use boxpool::MemoryStore;

boxpool_sim::store_conformance!(MemoryStore::new());

mod a_suite_that_can_fail {
    use async_trait::async_trait;
    use boxpool::{Cursor, Entry, Key, MemoryStore, Page, Result, StateStore, Stored, Table, Version};

    /// Overwrites whatever the version is: the classic.
    struct Blind(MemoryStore);

    #[async_trait]
    impl StateStore for Blind {
        async fn get(&self, key: &Key) -> Result<Option<Stored>> {
            self.0.get(key).await
        }
        async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
            self.0.insert(key, value).await
        }
        async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
            let present = self.0.get(key).await?.map_or_else(|| version.clone(), |stored| stored.version);
            self.0.update(key, &present, value).await
        }
        async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
            self.0.delete(key, version).await
        }
        async fn scan(
            &self,
            table: Table,
            partition: Option<&str>,
            cursor: Option<&Cursor>,
            limit: usize,
        ) -> Result<Page<Entry>> {
            self.0.scan(table, partition, cursor, limit).await
        }
    }

    #[tokio::test]
    #[should_panic]
    async fn a_blind_write_is_found_out() {
        let store = Blind(MemoryStore::new());
        boxpool_sim::conformance::store::an_update_with_an_old_version_changes_nothing(store).await;
    }
}
