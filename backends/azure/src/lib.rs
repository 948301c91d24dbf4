//! boxpool on Azure: the state store on Tables, instances as virtual machines, volumes as managed disks.
//!
//! The Azure crates stay inside: nothing of them is in the public interface, and one module (`sdk`) names them.

mod adopt;
mod arm;
mod bodies;
mod capacity;
mod cloud;
mod cloud_options;
mod credential;
mod errors;
mod ids;
mod instances;
mod key;
mod names;
mod options;
mod poll;
mod retry;
mod sdk;
mod store;
mod throttle;
mod transport;
mod volumes;

pub use cloud::AzureCloud;
pub use cloud_options::{Candidate, CloudOptions, DiskOptions, MachineOptions};
pub use credential::CredentialChoice;
pub use options::{Proxy, Secret, TablesAccess, TablesOptions};
pub use store::TableStore;
pub use volumes::AzureDevice;
