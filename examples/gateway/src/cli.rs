//! The command line of `boxpool-gateway`.

use crate::config::{Backend, Config, default_state_dir};
use boxpool::{BoxName, Error, ErrorKind, Region, Result, UserId};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::net::SocketAddr;
use std::path::PathBuf;

/// An SSH gateway to boxes: `ssh dev1@gateway`, and your machine is as you left it.
///
/// Without a configuration it listens on 127.0.0.1:2222, and whoever shows a key gets an account. Commands over SSH:
/// help, whoami, version, spinup NAME, list, connect NAME, delete NAME --yes, status; for the keys in admin_keys also
/// admin help.
#[derive(Debug, Parser)]
#[command(name = "boxpool-gateway", version, about, long_about, after_long_help = MORE)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Verb,
}

/// What `--help` says at the end.
pub(crate) const MORE: &str = "\
Examples:
  boxpool-gateway doctor                         is all there that is needed?
  boxpool-gateway config > gateway.toml          a file with every option explained
  boxpool-gateway serve --config gateway.toml    serve
  ssh -p 2222 gateway@127.0.0.1 spinup dev1      make a box
  ssh -p 2222 dev1@127.0.0.1                     go in

Files:
  The state directory holds the store (state.sqlite), the keys (ssh_host_ed25519_key, box_ed25519_key) and the boxes. It is
  --state-dir, else state_dir in the configuration, else $BOXPOOL_STATE_DIR, else /var/lib/boxpool for root, else
  $XDG_STATE_HOME/boxpool or ~/.local/state/boxpool.

Signals:
  SIGTERM, SIGINT   stop: no new connections, users are told, boxes are suspended. A second one ends the program at once.

Exit status:
  0 done, 1 failed (the reason is one line on standard error), 2 wrong usage.

For the operator:
  metrics_listen    /metrics, /health, /ready and a status page over HTTP
  audit_log         a file with one JSON object for each login, channel and connection
  admin_keys        keys that may give the commands for administrators over SSH";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Serve until SIGTERM or SIGINT.
    Serve(Options),
    /// Make what serving needs (keys, store, golden snapshot) and end. Safe to repeat.
    Init(Options),
    /// Say what is there and what is missing; changes nothing.
    Doctor {
        /// Where, and with which settings.
        #[command(flatten)]
        options: Options,
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a box of a disk of the resource group that holds one: restored from a snapshot, say. Safe to repeat.
    AdoptVolume {
        /// Where, and with which settings.
        #[command(flatten)]
        options: Options,
        /// The disk's name.
        disk: String,
        /// Whose box it becomes: the account that `whoami` shows.
        #[arg(long)]
        user: UserId,
        /// What the box is called.
        #[arg(long = "box", value_name = "NAME")]
        name: BoxName,
        /// In which region the disk is, where there are several; without it, in the first.
        #[arg(long)]
        region: Option<Region>,
        /// Take back what an earlier attempt began and did not end.
        #[arg(long)]
        abandon: bool,
    },
    /// Make a machine of the resource group one of the pool's, to be used and deleted as the others are. Safe to repeat.
    AdoptInstance {
        /// Where, and with which settings.
        #[command(flatten)]
        options: Options,
        /// The machine's name.
        machine: String,
        /// In which region it is, where there are several; without it, in the first.
        #[arg(long)]
        region: Option<Region>,
        /// The pool may delete the machine and its disks.
        #[arg(long, required_unless_present = "abandon")]
        yes: bool,
        /// Take back what an earlier attempt began and did not end.
        #[arg(long)]
        abandon: bool,
    },
    /// Show the host key: fingerprint, known_hosts line and SSHFP record.
    Hostkey(Options),
    /// Print a configuration file with every option, its default and what it does.
    Config,
    /// Print what a shell needs to complete this program's commands and options.
    ///
    /// For bash: boxpool-gateway completions bash > /etc/bash_completion.d/boxpool-gateway
    Completions {
        /// Of which shell.
        shell: Shell,
    },
    /// Print the manual page, boxpool-gateway.1; for those who package the program.
    #[command(hide = true)]
    ManPage,
}

/// Options of every command; they go before the configuration file.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// Where to listen.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where everything is kept.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What boxes are made of: local, or azure.
    #[arg(long, value_name = "BACKEND", value_parser = backend)]
    pub backend: Option<Backend>,
}

/// What `shell` needs to complete the program's commands and options.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "boxpool-gateway", &mut script);
    script
}

fn backend(text: &str) -> Result<Backend, String> {
    match text {
        "local" => Ok(Backend::Local),
        "azure" => Ok(Backend::Azure),
        _ => Err("say local or azure".into()),
    }
}

impl Options {
    /// The configuration with these options put in, and the state directory.
    ///
    /// # Errors
    /// When the file is wrong, or there is no place for state.
    pub fn resolve(&self, root: bool, variable: impl Fn(&str) -> Option<PathBuf>) -> Result<(Config, PathBuf)> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        if let Some(backend) = self.backend {
            config.backend = backend;
            let wrong = |why| Error::new(ErrorKind::Invalid, "read configuration", "--backend").with_detail(why);
            config.check().map_err(wrong)?;
        }
        let state_dir = match self.state_dir.clone().or_else(|| config.state_dir.clone()) {
            Some(path) => path,
            None => default_state_dir(root, variable)?,
        };
        Ok((config, state_dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_go_before_the_file_and_the_file_before_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, "listen = \"127.0.0.1:1\"\nstate_dir = \"/from-file\"\n").unwrap();
        let environment = |_: &str| Some(PathBuf::from("/from-environment"));
        let read = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let Verb::Serve(options) = cli.command else { panic!("not serve") };
            let (config, state_dir) = options.resolve(false, environment).unwrap();
            (config.listen.port(), state_dir.display().to_string())
        };
        assert_eq!(read("g serve"), (2222, "/from-environment".into()));
        let with_file = format!("g serve --config {}", file.display());
        assert_eq!(read(&with_file), (1, "/from-file".into()));
        assert_eq!(read(&format!("{with_file} --listen 127.0.0.1:3 --state-dir /s")), (3, "/s".into()));
    }

    #[test]
    fn the_command_line_itself_is_sound() {
        Cli::command().debug_assert();
    }
}
