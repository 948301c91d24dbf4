//! The `boxpool-gateway` program.

use boxpool::{Error, ErrorKind, Result};
use boxpool_gateway::cli::{Cli, Options, Verb, completions};
use boxpool_gateway::config::{Backend, Config, DEFAULT_FILE};
use boxpool_gateway::hostkey::{HOST_KEY_FILE, RSA_HOST_KEY_FILE, describe, read_key};
use boxpool_gateway::place::Place;
use boxpool_gateway::plain::plain;
use boxpool_gateway::serve::{Keys, listen, provide_golden, serve};
use boxpool_gateway::stop::{block_on, stop_signal};
use boxpool_gateway::{backends, doctor, man};
use clap::Parser;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// Packages, an image, a machine, its boot, a snapshot: a slow day.
const GOLDEN_LIMIT: Duration = Duration::from_secs(3_600);

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            let sentence = if error.detail().is_empty() { error.to_string() } else { error.detail().to_owned() };
            eprintln!("boxpool-gateway: {}", plain(&sentence));
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Config => {
            say(DEFAULT_FILE);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Completions { shell } => {
            say(&String::from_utf8_lossy(&completions(shell)));
            Ok(ExitCode::SUCCESS)
        }
        Verb::ManPage => {
            let page = man::page().map_err(|error| {
                Error::new(ErrorKind::Permanent, "show manual", "boxpool-gateway.1").with_detail(error.to_string())
            })?;
            say(&String::from_utf8_lossy(&page));
            Ok(ExitCode::SUCCESS)
        }
        Verb::Hostkey(options) => {
            let (config, place) = resolve(&options)?;
            let missing = "there is no host key yet; run: boxpool-gateway init";
            let key = read_key(&place.join(HOST_KEY_FILE))?
                .ok_or_else(|| Error::new(ErrorKind::NotFound, "show key", place.display()).with_detail(missing))?;
            let shown = config.shown_address();
            say(&describe(&key, &shown.host, shown.port)?);
            if config.rsa_host_key
                && let Some(key) = read_key(&place.join(RSA_HOST_KEY_FILE))?
            {
                say(&describe(&key, &shown.host, shown.port)?);
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Doctor { options, json } => {
            let (config, place) = resolve(&options)?;
            let scratch = tempdir()?;
            let path = std::env::var("PATH").unwrap_or_default();
            let mut findings = doctor::examine(&config, &place, &path);
            let machine = block_on(async { Ok(doctor::machine(&scratch).await) });
            let _ = std::fs::remove_dir_all(&scratch);
            findings.push(machine?);
            #[cfg(feature = "azure")]
            if config.backend == Backend::Azure {
                let alone = config.alone()?;
                findings.extend(block_on(async {
                    let mut all = Vec::new();
                    for (_, config) in &alone {
                        all.extend(boxpool_gateway::azure::examine(config).await);
                    }
                    Ok(all)
                })?);
            }
            let fit = doctor::is_fit(&findings);
            if json {
                say(&format!("{}\n", serde_json::json!({"fit": fit, "findings": findings})));
            } else {
                say(&doctor::as_text(&findings));
            }
            Ok(if fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Verb::AdoptVolume { options, disk, user, name, region, abandon } => {
            let config = resolve(&options)?.0.of_region(region.as_ref())?;
            start_log(&config)?;
            say(&format!("{}\n", block_on(backends::adopt_volume(&config, &disk, (&user, &name), abandon))?));
            Ok(ExitCode::SUCCESS)
        }
        Verb::AdoptInstance { options, machine, region, yes: _, abandon } => {
            let (config, state_dir) = resolve(&options)?;
            let config = config.of_region(region.as_ref())?;
            start_log(&config)?;
            say(&format!("{}\n", block_on(backends::adopt_instance(&config, &state_dir, &machine, abandon))?));
            Ok(ExitCode::SUCCESS)
        }
        Verb::Init(options) => {
            let (config, state_dir) = resolve(&options)?;
            start_log(&config)?;
            block_on(async {
                find_qemu(&config).await?;
                let place = Place::ensure(&state_dir)?;
                let keys = Keys::ensure(&place)?.as_configured(&config, &place)?;
                for site in backends::open(&config, &place, &keys).await? {
                    provide_golden(site, GOLDEN_LIMIT).await?;
                }
                Ok(())
            })?;
            say(&format!("everything is there, in {}\n", state_dir.display()));
            Ok(ExitCode::SUCCESS)
        }
        Verb::Serve(options) => {
            let (config, state_dir) = resolve(&options)?;
            start_log(&config)?;
            config.registration()?; // a wrong list is told before anything is touched
            config.admins()?;
            block_on(async {
                let listener = listen(config.listen).await?;
                let stop = stop_signal()?;
                find_qemu(&config).await?;
                let place = Place::ensure(&state_dir)?;
                let keys = Keys::ensure(&place)?.as_configured(&config, &place)?;
                tokio::pin!(stop);
                let sites = tokio::select! {
                    sites = backends::open(&config, &place, &keys) => sites?,
                    () = &mut stop => return Ok(()), // half-made things are taken up by the next start
                };
                serve(&config, keys, sites, listener, stop).await
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Told before anything is made.
async fn find_qemu(config: &Config) -> Result<()> {
    match config.backend {
        Backend::Local => boxpool_qemu::find_qemu(&boxpool_qemu::LocalHost).await.map(drop),
        Backend::Azure => Ok(()),
    }
}

fn resolve(options: &Options) -> Result<(Config, PathBuf)> {
    options.resolve(rustix::process::geteuid().is_root(), |name| std::env::var_os(name).map(PathBuf::from))
}

fn start_log(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| {
        let detail = format!("option log: {:?} is not a log filter: {error}", config.log);
        Error::new(ErrorKind::Invalid, "read configuration", "log").with_detail(detail)
    })?;
    let stderr = std::io::stderr;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal()).init();
    Ok(())
}

/// A directory of our own below the system's for temporary things.
fn tempdir() -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("boxpool-doctor-{}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
        let detail = format!("the temporary directory {} cannot be made: {error}", path.display());
        Error::new(ErrorKind::Permanent, "look", path.display()).with_detail(detail)
    })?;
    Ok(path)
}

/// Prints; a reader that has left is no error.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
