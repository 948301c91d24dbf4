//! boxpool on Azure: the state store on Tables, instances as virtual machines, volumes as managed disks.
//!
//! The Azure crates stay inside: nothing of them is in the public interface, and one module (`sdk`) names them.
//!
//! ```
//! use boxpool_azure::{CredentialChoice, TableStore, TablesAccess, TablesOptions};
//!
//! // On a machine with a managed identity that holds the role "Storage Table Data Contributor":
//! let identity = CredentialChoice::ManagedIdentity { client_id: None };
//! let store = TableStore::open(&TablesOptions::new("mystateaccount", TablesAccess::Identity(identity)))?;
//! # Ok::<(), boxpool::Error>(())
//! ```
//!
//! What Azure cannot tell or keep, and who does instead:
//! - whether a guest runs on a disk, and which epoch it was last used in: the runtime's mark on the volume;
//! - whether a machine in a listing runs: ask for the machine itself;
//! - the addresses of operations under way: they live in this process; whoever does not know one looks at the resource.

mod adopt;
mod ancestry;
mod arm;
mod bodies;
mod capacity;
mod clock;
mod cloud;
#[cfg(feature = "hosts")]
mod cloud_init;
mod cloud_options;
mod copies;
mod credential;
mod errors;
#[cfg(feature = "hosts")]
mod golden;
#[cfg(feature = "hosts")]
mod host_key;
#[cfg(feature = "hosts")]
mod hosts;
mod ids;
#[cfg(feature = "hosts")]
mod image;
mod instances;
mod key;
mod names;
mod options;
mod poll;
mod quota;
mod retry;
mod rights;
mod sdk;
mod spread;
mod store;
mod throttle;
mod transport;
mod volumes;

pub use cloud::AzureCloud;
pub use cloud_options::{Candidate, CloudOptions, DiskOptions, MachineOptions};
pub use credential::CredentialChoice;
#[cfg(feature = "hosts")]
pub use golden::{AzureGolden, Prepare};
#[cfg(feature = "hosts")]
pub use hosts::{AzureHosts, HostAccess};
pub use options::{Proxy, Secret, TablesAccess, TablesOptions};
pub use quota::Quota;
pub use rights::ACTIONS;
pub use store::TableStore;
pub use volumes::AzureDevice;
