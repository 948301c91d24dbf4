//! The configuration file.
//!
//! TOML; every option has a default, an unknown one is an error. `boxpool-gateway config` prints [`DEFAULT_FILE`], in
//! which every option is explained; a test keeps it in step with the defaults here.

use crate::certificate::Authorities;
use crate::duration::Span;
use crate::lobby::admin::AdminKeys;
use crate::plain::plain;
use crate::region_config::RegionConfig;
use crate::registration::Registration;
use crate::server::{Settings, SocketOrHost};
use crate::size::Size;
use crate::stock::{Parking, Promise};
use crate::wake::http::HttpConfig;
use crate::wake::schedule::ScheduleConfig;
use boxpool::{Error, ErrorKind, PoolConfig, Result};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// A file with every option, its default, and what it does.
pub const DEFAULT_FILE: &str = include_str!("default.toml");

/// So many keys of one account fit in a record of any store.
const KEYS_MAX: usize = 16;

/// All settings of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The host users type, when it is not the address listened on.
    pub public_host: Option<String>,
    /// Where everything is kept.
    pub state_dir: Option<PathBuf>,
    /// What boxes are made of.
    pub backend: Backend,
    /// Who may log in.
    pub registration: RegistrationMode,
    /// The keys that may log in, when only listed ones may.
    pub allow_list: Option<PathBuf>,
    /// The authorities whose user certificates are trusted.
    pub trusted_user_ca_keys: Option<PathBuf>,
    /// Whether there is an RSA host key beside the one of the kind ed25519.
    pub rsa_host_key: bool,
    /// Whether a login with a new name makes the box.
    pub spinup_on_connect: bool,
    /// Boxes that can run at once.
    pub slots: u32,
    /// Fresh disks kept ready.
    pub min_free: u32,
    /// How long a box runs on after its last session.
    pub linger: Span,
    /// How long a suspended box keeps its slot when nobody else wants it.
    pub park_limit: Span,
    /// Which suspended boxes keep their slot, or are given one ahead.
    pub parking: Parking,
    /// How many hundredths of the slots suspended boxes may keep.
    pub parked_percent: u8,
    /// For how long a deleted box can be had back.
    pub retention: Span,
    /// How many records all gateways together read a second to look for half-done work, about.
    pub reads_per_second: NonZeroU32,
    /// How long bringing a box up may take.
    pub connect_deadline: Span,
    /// How long a box may not answer before it is given up.
    pub dial_deadline: Span,
    /// How long a stop may take.
    pub drain_limit: Span,
    /// What clients are shown before they log in.
    pub banner: String,
    /// How long a client may take to log in.
    pub login_grace: Span,
    /// How often silent peers are asked whether they live.
    pub keepalive: Span,
    /// How long a connection may stay without any channel.
    pub idle_limit: Span,
    /// What is logged.
    pub log: String,
    /// Where logins, channels and connections are told.
    pub audit_log: Option<PathBuf>,
    /// Whether that also has command lines and targets of forwards.
    pub audit_commands: bool,
    /// The keys that may give the commands for administrators.
    pub admin_keys: Option<PathBuf>,
    /// Where metrics and the status page are.
    pub metrics_listen: Option<SocketAddr>,
    /// Ceilings.
    pub limits: Limits,
    /// What a box is.
    #[serde(rename = "box")]
    pub boxes: BoxConfig,
    /// The cloud, when boxes are made of one.
    pub azure: AzureConfig,
    /// Regions where boxes can live; with none there is one without a name.
    pub region: Vec<RegionConfig>,
    /// Ports that lead into boxes and wake them.
    pub http: Vec<HttpConfig>,
    /// Times at which boxes are woken.
    pub schedule: Vec<ScheduleConfig>,
}

/// What boxes are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// This machine and a file.
    Local,
    /// Virtual machines, managed disks and tables of Azure.
    Azure,
}

/// Where in Azure, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AzureConfig {
    /// The subscription's id.
    pub subscription: String,
    /// The resource group.
    pub resource_group: String,
    /// The region.
    pub location: String,
    /// The pool's name.
    pub pool: String,
    /// The account with the tables.
    pub storage_account: String,
    /// Its table endpoint; empty for the public cloud's.
    pub tables_endpoint: String,
    /// Resource Manager's address.
    pub management_endpoint: String,
    /// Who acts.
    pub credential: String,
    /// The full id of the machines' subnet.
    pub subnet: String,
    /// The full id of a network security group; empty for none.
    pub security_group: String,
    /// What machines boot: `publisher:offer:sku:version`, of which an image with all that they need is made once, or the full id of an image
    /// of your own.
    pub image: String,
    /// Sizes in the order of preference.
    pub sizes: Vec<String>,
    /// Zones, each for every size, over which machines are spread; none for the region at large.
    pub zones: Vec<String>,
    /// Of disks.
    pub disk_sku: String,
    /// Of snapshots.
    pub snapshot_sku: String,
    /// Machines kept ready, at least.
    pub machines_min_free: u32,
    /// Machines kept ready, at most.
    pub machines_max_free: u32,
    /// The promise that says how many are kept ready between those.
    pub machines_goal: Promise,
    /// Machines kept stopped beside them, at least.
    pub machines_min_stopped: u32,
    /// Machines kept stopped beside them, at most.
    pub machines_max_stopped: u32,
    /// Machines begun to be made within a minute, at most; 0 for any number.
    pub machines_per_minute: u32,
    /// Machines in all.
    pub machines_max: u32,
    /// What becomes of a machine after a box.
    pub recycle: RecycleMode,
    /// Where the machines' SSH servers listen.
    pub ssh_port: u16,
}

/// What becomes of a machine after a box has left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecycleMode {
    /// It serves again once it is seen to be clean.
    Reuse,
    /// The next box finds a machine made anew of the image. Done as `Destroy`: Azure's own reimage spares no time.
    Reimage,
    /// It is deleted.
    Destroy,
}

impl Default for AzureConfig {
    fn default() -> Self {
        Self {
            subscription: String::new(),
            resource_group: String::new(),
            location: String::new(),
            pool: "boxpool".into(),
            storage_account: String::new(),
            tables_endpoint: String::new(),
            management_endpoint: "https://management.azure.com".into(),
            credential: "auto".into(),
            subnet: String::new(),
            security_group: String::new(),
            image: "Canonical:0001-com-ubuntu-server-jammy:22_04-lts-gen2:latest".into(),
            sizes: vec!["Standard_D2s_v5".into()],
            zones: Vec::new(),
            disk_sku: "Premium_LRS".into(),
            snapshot_sku: "Standard_LRS".into(),
            machines_min_free: 1,
            machines_max_free: 2,
            machines_goal: Promise::default(),
            machines_min_stopped: 0,
            machines_max_stopped: 0,
            machines_per_minute: 0,
            machines_max: 10,
            recycle: RecycleMode::Reuse,
            ssh_port: 22,
        }
    }
}

impl AzureConfig {
    pub(crate) fn check(&self) -> Result<(), String> {
        for (option, value) in [
            ("subscription", &self.subscription),
            ("resource_group", &self.resource_group),
            ("location", &self.location),
            ("storage_account", &self.storage_account),
            ("subnet", &self.subnet),
        ] {
            if value.is_empty() {
                return Err(format!("backend is \"azure\", so azure.{option} must be given"));
            }
        }
        if self.machines_max == 0
            || self.machines_min_free > self.machines_max_free
            || self.machines_max_free > self.machines_max
        {
            return Err(
                "azure.machines_min_free, machines_max_free and machines_max must rise, and the last be at least 1"
                    .into(),
            );
        }
        if self.machines_min_stopped > self.machines_max_stopped
            || self.machines_max_stopped > self.machines_max - self.machines_min_free
        {
            return Err(
                "azure.machines_min_stopped and machines_max_stopped must rise, and the last fit into machines_max \
                        beside machines_min_free"
                    .into(),
            );
        }
        Ok(())
    }
}

/// Who may log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegistrationMode {
    /// Everybody with a key.
    Open,
    /// Whoever logs in as `new` or `register`.
    ByName,
    /// Whoever's key is listed.
    AllowList,
}

/// Ceilings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Boxes one user may have.
    pub boxes_per_user: usize,
    /// Boxes of one user that may run at once.
    pub running_boxes_per_user: usize,
    /// Snapshots one user may keep.
    pub snapshots_per_user: usize,
    /// How large the disks of one user may be, taken together, in GiB. As many as there may be, never grown, when not said.
    pub disk_gib_per_user: Option<u32>,
    /// Connections one user may have.
    pub connections_per_user: usize,
    /// Channels one connection may have open.
    pub channels_per_connection: usize,
    /// Connections that have not logged in yet.
    pub logging_in: usize,
    /// The same from one address.
    pub logging_in_per_address: usize,
    /// Keys that one user may have.
    pub keys_per_user: usize,
    /// Failed logins after which an address is turned away; zero: never.
    pub failed_logins_per_address: u32,
    /// For how long.
    pub ban: Span,
}

/// What a box is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoxConfig {
    /// What is in it at first.
    pub recipe: Recipe,
    /// The cloud image that it is made of: a URL or an absolute path.
    pub image: Option<String>,
    /// The image's sha256.
    pub image_sha256: Option<String>,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// Its processors.
    pub cpus: u32,
    /// Its disk, in GiB. Takes only what is written to it.
    pub disk_gib: u32,
    /// Where packages come from.
    pub mirror: String,
    /// How it is run.
    pub accel: Accel,
    /// What it may reach.
    pub network: Network,
    /// The user QEMU runs as when the gateway is root.
    pub qemu_user: String,
    /// Disk space that is always left free, in MiB.
    pub keep_free_mib: u64,
}

/// What is in a new box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recipe {
    /// Debian.
    Debian,
    /// A kernel, a shell and an SSH server, for tests.
    Tiny,
    /// A distribution's own disk image for clouds.
    CloudImage,
}

/// How a box is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// By hardware where that truly works.
    Auto,
    /// By hardware, or not at all.
    Kvm,
    /// In software.
    Tcg,
}

/// What boxes may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Nothing; forwards from the user's side work.
    Isolated,
    /// The world, and this machine's own loopback services.
    Open,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 2222)),
            public_host: None,
            state_dir: None,
            backend: Backend::Local,
            registration: RegistrationMode::Open,
            allow_list: None,
            trusted_user_ca_keys: None,
            rsa_host_key: false,
            spinup_on_connect: false,
            slots: 4,
            min_free: 1,
            linger: Span::seconds(10),
            park_limit: Span::seconds(24 * 3600),
            parking: Parking::default(),
            parked_percent: 100,
            retention: Span::seconds(0),
            reads_per_second: PoolConfig::READS_PER_SECOND,
            connect_deadline: Span::seconds(300),
            dial_deadline: Span::seconds(60),
            drain_limit: Span::seconds(30),
            banner: String::new(),
            login_grace: Span::seconds(30),
            keepalive: Span::seconds(20),
            idle_limit: Span::seconds(12 * 3600),
            log: "info".into(),
            audit_log: None,
            audit_commands: false,
            admin_keys: None,
            metrics_listen: None,
            limits: Limits::default(),
            boxes: BoxConfig::default(),
            azure: AzureConfig::default(),
            region: Vec::new(),
            http: Vec::new(),
            schedule: Vec::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            boxes_per_user: 10,
            running_boxes_per_user: 10,
            snapshots_per_user: 10,
            disk_gib_per_user: None,
            connections_per_user: 100,
            channels_per_connection: 64,
            logging_in: 200,
            logging_in_per_address: 50,
            keys_per_user: 10,
            failed_logins_per_address: 30,
            ban: Span::seconds(10 * 60),
        }
    }
}

impl Default for BoxConfig {
    fn default() -> Self {
        Self {
            recipe: Recipe::Debian,
            image: None,
            image_sha256: None,
            memory_mib: 512,
            cpus: 1,
            disk_gib: 10,
            mirror: "http://deb.debian.org/debian".into(),
            accel: Accel::Auto,
            network: Network::Isolated,
            qemu_user: "boxpool".into(),
            keep_free_mib: 512,
        }
    }
}

impl BoxConfig {
    /// Where the cloud image is looked at, nothing else is: whether the file is there is seen when it is needed.
    fn check_image(&self) -> Result<(), String> {
        let is_url = |image: &str| image.starts_with("https://") || image.starts_with("http://");
        if self.recipe != Recipe::CloudImage {
            return match (&self.image, &self.image_sha256) {
                (None, None) => Ok(()),
                _ => Err("box.image and box.image_sha256 are for recipe = \"cloud-image\"".into()),
            };
        }
        match &self.image {
            Some(image) if !is_url(image) && !image.starts_with('/') => {
                return Err(format!(
                    "box.image is {image:?}; it must be an https:// or http:// URL or an absolute path"
                ));
            }
            _ => {}
        }
        match &self.image_sha256 {
            Some(sum) if sum.len() != 64 || !sum.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Err("box.image_sha256 must be 64 hex digits".into())
            }
            _ => Ok(()),
        }
    }
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML, has an unknown option or a value that makes no sense. The message is one
    /// sentence that names the file, the line where there is one, and the option.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| invalid(format!("the configuration {} cannot be read: {error}", path.display())))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Parses the text of a configuration file called `name`.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let at = line.map(|line| format!(", line {line}")).unwrap_or_default();
            invalid(format!("configuration {name}{at}: {}", plain(error.message())))
        })?;
        config.check().map_err(|why| invalid(format!("configuration {name}: {why}")))?;
        Ok(config)
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// A sentence that names the option.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            ("slots", self.slots),
            ("box.memory_mib", self.boxes.memory_mib),
            ("box.cpus", self.boxes.cpus),
            ("box.disk_gib", self.boxes.disk_gib),
        ];
        for (option, value) in positive {
            if value == 0 {
                return Err(format!("{option} must be at least 1"));
            }
        }
        for (option, value) in [
            ("limits.boxes_per_user", self.limits.boxes_per_user),
            ("limits.running_boxes_per_user", self.limits.running_boxes_per_user),
            ("limits.connections_per_user", self.limits.connections_per_user),
            ("limits.channels_per_connection", self.limits.channels_per_connection),
            ("limits.logging_in", self.limits.logging_in),
            ("limits.logging_in_per_address", self.limits.logging_in_per_address),
        ] {
            if value == 0 {
                return Err(format!("{option} must be at least 1"));
            }
        }
        for (option, value) in [
            ("connect_deadline", self.connect_deadline),
            ("dial_deadline", self.dial_deadline),
            ("drain_limit", self.drain_limit),
            ("login_grace", self.login_grace),
            ("keepalive", self.keepalive),
        ] {
            if value < Span::seconds(1) {
                return Err(format!("{option} must be at least 1s"));
            }
        }
        if self.parked_percent > 100 {
            return Err("parked_percent must be 0 to 100".into());
        }
        if self.limits.disk_gib_per_user.is_some_and(|most| most < self.boxes.disk_gib) {
            return Err("limits.disk_gib_per_user must be at least box.disk_gib, or nobody could have a box".into());
        }
        if !(1..=KEYS_MAX).contains(&self.limits.keys_per_user) {
            return Err(format!("limits.keys_per_user must be 1 to {KEYS_MAX}"));
        }
        if self.boxes.memory_mib < 64 {
            return Err("box.memory_mib must be at least 64".into());
        }
        self.boxes.check_image()?;
        self.http.iter().try_for_each(HttpConfig::check)?;
        self.schedule.iter().try_for_each(ScheduleConfig::check)?;
        if self.backend == Backend::Azure && self.region.is_empty() {
            self.azure.check()?;
        }
        self.check_regions()?;
        match (self.registration, &self.allow_list) {
            (RegistrationMode::AllowList, None) => {
                Err("registration is \"allow-list\", so allow_list must name a file of public keys".into())
            }
            (RegistrationMode::Open, Some(_)) => {
                Err("allow_list is given, but registration is \"open\"; set registration = \"allow-list\"".into())
            }
            (RegistrationMode::ByName, Some(_)) => {
                Err("allow_list is given, but registration is \"by-name\"; set registration = \"allow-list\"".into())
            }
            _ => Ok(()),
        }
    }

    /// Who may log in. Reads the allow-list.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn registration(&self) -> Result<Registration> {
        match &self.allow_list {
            Some(path) => Registration::read_allow_list(path),
            None if self.registration == RegistrationMode::ByName => Ok(Registration::ByName),
            None => Ok(Registration::Open),
        }
    }

    /// Who may give the commands for administrators. Reads the list.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn admins(&self) -> Result<AdminKeys> {
        self.admin_keys.as_deref().map_or_else(|| Ok(AdminKeys::default()), AdminKeys::read)
    }

    /// The settings of the SSH side.
    ///
    /// # Errors
    /// When the allow-list or the authorities' keys cannot be read.
    pub fn settings(&self) -> Result<Settings> {
        let authorities = match &self.trusted_user_ca_keys {
            Some(path) => Authorities::read(path)?,
            None => Authorities::default(),
        };
        Ok(Settings::of(self, self.registration()?, authorities))
    }

    /// How large a new box's disk is.
    pub(crate) fn fresh_disk(&self) -> Size {
        Size(u64::from(self.boxes.disk_gib) << 30)
    }

    /// How much disk a user may have in all.
    pub(crate) fn disk_per_user(&self) -> Size {
        match self.limits.disk_gib_per_user {
            Some(gib) => Size(u64::from(gib) << 30),
            None => {
                let boxes = u64::try_from(self.limits.boxes_per_user).unwrap_or(u64::MAX);
                Size(self.fresh_disk().0.saturating_mul(boxes))
            }
        }
    }

    /// Host and port that users type.
    #[must_use]
    pub fn shown_address(&self) -> SocketOrHost {
        let listened = match self.listen.ip() {
            ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
            ip => ip.to_string(),
        };
        SocketOrHost { host: self.public_host.clone().unwrap_or(listened), port: self.listen.port() }
    }
}

/// Where state is kept when nothing else is said: `$BOXPOOL_STATE_DIR`, for root `/var/lib/boxpool`, else
/// `$XDG_STATE_HOME/boxpool` or `~/.local/state/boxpool`. `variable` reads the environment.
///
/// # Errors
/// When the environment names no place.
pub fn default_state_dir(root: bool, variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf> {
    let set = |name: &str| variable(name).filter(|path| path.is_absolute());
    if let Some(path) = variable("BOXPOOL_STATE_DIR").filter(|path| !path.as_os_str().is_empty()) {
        return Ok(path);
    }
    if root {
        return Ok("/var/lib/boxpool".into());
    }
    let place = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    place
        .map(|path| path.join("boxpool"))
        .ok_or_else(|| invalid("there is no home directory to keep state in; say --state-dir DIR".into()))
}

fn invalid(detail: String) -> Error {
    Error::new(ErrorKind::Invalid, "read configuration", "file").with_detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_file_holds_every_option_with_its_default() {
        assert_eq!(Config::parse(DEFAULT_FILE, "default").unwrap(), Config::default());
        // With the comment marks in front of its options taken away it still means the same, so none is misspelt.
        let uncommented: String = DEFAULT_FILE
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if is_option_or_table(rest) => rest,
                _ => line,
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let written = toml::from_str::<toml::Table>(&uncommented).unwrap();
        let usable = uncommented
            .replace("allow_list =", "# allow_list =")
            .replace("\ntrusted_user_ca_keys", "\n# trusted_user_ca_keys")
            .replace("\nimage", "\n# image");
        let mut all = Config::parse(&usable, "all").unwrap();
        (all.public_host, all.state_dir, all.audit_log, all.metrics_listen) = (None, None, None, None);
        all.admin_keys = None;
        all.limits.disk_gib_per_user = None;
        let [region] = &*std::mem::take(&mut all.region) else { panic!("one example") };
        assert_eq!((region.name.as_str(), &region.dir, region.slots), ("here", &None, None));
        let [http] = &*std::mem::take(&mut all.http) else { panic!("one example") };
        assert_eq!(*http, HttpConfig::new(http.target.clone(), http.listen, http.port));
        let [schedule] = &*std::mem::take(&mut all.schedule) else { panic!("one example") };
        assert_eq!(schedule.time_zone, crate::wake::schedule::Zone::default());
        assert_eq!(all, Config::default());
        // And none is missing.
        let known = toml::Table::try_from(Config {
            public_host: Some(String::new()),
            state_dir: Some(PathBuf::new()),
            allow_list: Some(PathBuf::new()),
            trusted_user_ca_keys: Some(PathBuf::new()),
            audit_log: Some(PathBuf::new()),
            admin_keys: Some(PathBuf::new()),
            metrics_listen: Some(SocketAddr::from(([127, 0, 0, 1], 1))),
            limits: Limits { disk_gib_per_user: Some(0), ..Limits::default() },
            boxes: BoxConfig { image: Some(String::new()), image_sha256: Some(String::new()), ..BoxConfig::default() },
            ..Config::default()
        })
        .unwrap();
        for (name, value) in &known {
            assert!(written.contains_key(name), "{name} is missing");
            for inner in value.as_table().into_iter().flat_map(toml::Table::keys) {
                assert!(written[name].as_table().unwrap().contains_key(inner), "{name}.{inner} is missing");
            }
        }
    }

    fn is_option_or_table(line: &str) -> bool {
        line.starts_with("[[") || line.split_once(" = ").is_some_and(|(name, _)| name.bytes().all(is_name))
    }

    fn is_name(byte: u8) -> bool {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
    }

    #[test]
    fn mistakes_are_named_with_file_line_and_option() {
        for (text, parts) in [
            ("slots = 2\nslotz = 3\n", &["test.toml", "line 2", "slotz"][..]),
            ("[box]\nram = 3\n", &["line 2", "ram"]),
            ("slots = \"many\"\n", &["line 1", "slots"][..1]),
            ("linger = \"soon\"\n", &["line 1", "soon", "duration"]),
            ("slots = 0\n", &["slots must be at least 1"]),
            ("registration = \"allow-list\"\n", &["allow_list must name a file"]),
            ("allow_list = \"x\"\n", &["registration is \"open\""]),
            ("registration = \"by-name\"\nallow_list = \"x\"\n", &["registration is \"by-name\""]),
            ("[limits]\nkeys_per_user = 99\n", &["limits.keys_per_user", "1 to 16"]),
            ("[box]\nimage = \"/x\"\n", &["box.image", "cloud-image"]),
            ("[box]\nrecipe = \"cloud-image\"\nimage = \"x.img\"\n", &["box.image", "absolute path"]),
            ("[box]\nrecipe = \"cloud-image\"\nimage_sha256 = \"12\"\n", &["box.image_sha256", "64 hex digits"]),
            ("backend = \"azure\"\n", &["azure.subscription must be given"]),
            ("[azure]\nsizez = []\n", &["line 2", "sizez"]),
            ("listen = \"nowhere\"\n", &["line 1"]),
            ("[[http]]\nlisten = \"127.0.0.1:1\"\nport = 1\nbox = \"dev1\"\n", &["line 4", "dev1", "ACCOUNT/BOX"]),
            ("[[http]]\nlisten = \"127.0.0.1:1\"\nport = 0\nbox = \"aa/dev1\"\n", &["http.port of 127.0.0.1:1"]),
            ("[[http]]\nbox = \"aa/dev1\"\nport = 1\n", &["line 1", "listen"]),
            (
                "[[schedule]]\nbox = \"aa/b\"\ncron = \"daily\"\nhold = \"1m\"\n",
                &["line 3", "cron expression", "0 7 * * 1-5"],
            ),
            ("[[schedule]]\nbox = \"aa/Dev1\"\ncron = \"@daily\"\nhold = \"1m\"\n", &["line 2", "ACCOUNT/BOX"]),
            ("[[schedule]]\nbox = \"aa/b\"\ncron = \"@daily\"\nhold = \"0s\"\n", &["schedule.hold of aa/b"]),
            ("[[schedule]]\ntime_zone = \"Mars\"\n", &["line 2", "Mars", "Europe/Berlin"]),
            ("this is not toml", &["line 1"]),
        ] {
            let message = Config::parse(text, "test.toml").unwrap_err().detail().to_owned();
            assert!(parts.iter().all(|part| message.contains(part)), "{text:?}: {message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }

    #[test]
    fn a_cloud_image_is_a_url_a_file_or_the_default() {
        for image in ["", "image = \"https://example.org/x.img\"\n", "image = \"/srv/x.img\"\n"] {
            let sum = format!("image_sha256 = \"{}\"\n", "0aF9".repeat(16));
            let text = format!("[box]\nrecipe = \"cloud-image\"\n{image}{sum}");
            let config = Config::parse(&text, "test.toml").unwrap();
            assert_eq!(config.boxes.recipe, Recipe::CloudImage);
        }
    }

    #[test]
    fn the_state_directory_follows_the_environment() {
        let with =
            |name: &'static str, value: &'static str| move |asked: &str| (asked == name).then(|| PathBuf::from(value));
        assert_eq!(default_state_dir(true, |_| None).unwrap(), Path::new("/var/lib/boxpool"));
        assert_eq!(default_state_dir(true, with("BOXPOOL_STATE_DIR", "/x")).unwrap(), Path::new("/x"));
        let home = default_state_dir(false, with("HOME", "/home/me")).unwrap();
        assert_eq!(home, Path::new("/home/me/.local/state/boxpool"));
        assert_eq!(default_state_dir(false, with("XDG_STATE_HOME", "/s")).unwrap(), Path::new("/s/boxpool"));
        assert!(default_state_dir(false, |_| None).is_err());
    }
}
