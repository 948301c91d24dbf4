//! An SSH gateway on [`boxpool`]: `ssh dev1@gateway`, and your machine is as you left it.
//!
//! The library part takes SSH connections in ([`server`]), knows who they are by their key ([`auth`], [`account`]),
//! answers the gateway's own commands ([`lobby`]) and hands everything else on to a box ([`proxy`], [`forward`]).
//! It reaches boxes through the trait [`boxes::Boxes`] only. The binary `boxpool-gateway` puts a pool behind it.
//!
//! # What a login name means
//! - The name of one of the account's boxes leads into that box.
//! - Every other name leads to the lobby: with a command, it is a command of the gateway (`help`, `list`, …);
//!   without one, a reserved name (`gateway`, `help`, …) shows the help, and any other name is told that there is no
//!   such box.
//! - With `spinup_on_connect`, a new name that could be a box's, without a command of the gateway, makes the box.
//!
//! # What a connection to a box holds
//! A connection whose login names a box keeps it up from login to its end, so `ssh -N` works; one on which nothing is
//! open for `idle_limit` is ended.
//!
//! # A gateway of your own
//! `examples/own.rs` is one in under 200 lines, with its own list of people and its own rule for boxes. What it takes from here:
//!
//! | module | what for |
//! | --- | --- |
//! | [`server`] | [`server::Gateway`] accepts, logs in and serves until it is told to stop; [`server::Settings`] has a default |
//! | [`registration`], [`certificate`] | who may log in: everybody, those who ask by name, a file of keys; certificates of your authorities |
//! | [`boxes`] | [`boxes::Boxes`], the seam to whatever boxes are: a [`boxpool::Pool`] is one, and your policy wraps it. Verbs that you leave out are refused in words |
//! | [`account`] | users and their keys, in the store that the pool has |
//! | [`upstream`] | [`upstream::Remote`], the way to boxes that have no address here |
//! | [`operator`], [`audit`], [`monitor`], [`overview`] | if you want them: the audit log, metrics and the status page, commands for administrators |
//! | [`wake`] | if you want it: HTTP and the clock bring boxes up |
//! | [`place`], [`hostkey`], [`serve`], [`stop`], [`backends`] | parts of the program that others can use: the state directory, keys, the listener, signals, the store |
//!
//! How bytes get from a channel to a box ([`connection`], [`channel`], [`proxy`], [`forward`], [`hold`]) needs nothing from you. [`cli`],
//! [`config`], [`doctor`] and [`man`] are the program's own.

pub mod account;
pub mod algorithms;
pub mod audit;
pub mod auth;
#[cfg(feature = "azure")]
pub mod azure;
pub mod backends;
pub mod boxes;
pub mod certificate;
pub mod channel;
pub mod cli;
pub mod closer;
pub mod config;
pub mod connection;
pub mod disk_limit;
pub mod doctor;
pub mod duration;
pub mod exit;
pub mod forward;
pub mod hold;
pub mod hostkey;
pub mod latest;
pub mod limited_boxes;
pub mod limits;
pub mod lobby;
mod lock;
pub mod login;
pub mod man;
pub mod meter;
pub mod moment;
pub mod monitor;
pub mod operator;
pub mod overview;
pub mod page;
pub mod place;
pub mod plain;
pub mod pool;
pub mod proxy;
pub mod region_config;
pub mod regions;
pub mod registration;
mod removed;
pub mod running_limit;
pub mod serve;
pub mod server;
pub mod sessions;
pub mod size;
pub mod stock;
pub mod stop;
pub mod tally;
pub mod unknown_key;
pub mod upstream;
pub mod user;
pub mod visit;
pub mod wake;
