//! The connections of this gateway that are logged in.

use crate::connection::Connection;
use crate::lock::lock;
use crate::visit::VisitId;
use boxpool::UserId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

/// Who is logged in here.
#[derive(Default)]
pub struct Sessions(Mutex<BTreeMap<VisitId, (UserId, Weak<Connection>)>>);

impl Sessions {
    /// Adds a connection of `account`, which may have `most` of them. `false`: it has that many already.
    pub fn admit(&self, account: &UserId, connection: &Arc<Connection>, most: usize) -> bool {
        let mut all = lock(&self.0);
        let has = all.values().filter(|(of, _)| of == account).count();
        if has < most {
            all.insert(connection.visit.id, (account.clone(), Arc::downgrade(connection)));
        }
        has < most
    }

    /// Takes one out.
    pub fn remove(&self, id: VisitId) {
        lock(&self.0).remove(&id);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.0).len()
    }

    /// Channels that are open on them.
    #[must_use]
    pub fn open_channels(&self) -> usize {
        self.all().iter().map(|connection| connection.visit.open_channels()).sum()
    }

    /// Bytes on the wire so far, in and out, of all of them.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let each = self.all().into_iter().map(|connection| connection.visit.bytes());
        each.fold((0, 0), |(all_in, all_out), (bytes_in, bytes_out)| (all_in + bytes_in, all_out + bytes_out))
    }

    /// Those of `account`.
    #[must_use]
    pub fn of(&self, account: &UserId) -> Vec<Arc<Connection>> {
        let all = lock(&self.0);
        all.values().filter(|(of, _)| of == account).filter_map(|(_, connection)| connection.upgrade()).collect()
    }

    /// All of them, the oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Connection>> {
        lock(&self.0).values().filter_map(|(_, connection)| connection.upgrade()).collect()
    }
}
