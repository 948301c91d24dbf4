//! What things cost, from a file.

use crate::backend::{Bill, Prices, Usage};
use serde::Deserialize;

/// Why a file does not say what things cost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PricesError {
    /// It is no TOML, a key is missing, or one is not known.
    #[error("prices are not understood (sim/prices/azure-east-us.toml shows every key there is)")]
    Toml(#[from] toml::de::Error),
    /// A figure cannot be a price.
    #[error("prices: {key} is {value}, not a number from 0 to a million")]
    Figure {
        /// Which key.
        key: &'static str,
        /// What stands there.
        value: f64,
    },
    /// The currency has no name, or a long one.
    #[error("prices: currency is {0:?}, not a word of 1 to 8 letters, such as \"EUR\"")]
    Currency(String),
}

/// What things cost, in which currency, and how large they are.
///
/// ```
/// # use boxpool_sim::planner::PriceList;
/// let prices = PriceList::parse(
///     r#"
///     currency = "EUR"
///     machine_hour = 0.10           # a machine that runs, comes or goes
///     stopped_machine_hour = 0.004  # its OS disk
///     volume_gib_month = 0.08
///     snapshot_gib_month = 0.05
///     store_calls_10k = 0.0004
///     volume_gib = 32               # how large a box's volume is
///     snapshot_gib = 4              # and the golden snapshot
///     "#,
/// )?;
/// assert_eq!(prices.currency(), "EUR");
/// # Ok::<(), boxpool_sim::planner::PricesError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PriceList {
    currency: String,
    prices: Prices,
    volume_gib: f64,
    snapshot_gib: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    currency: String,
    machine_hour: f64,
    stopped_machine_hour: f64,
    volume_gib_month: f64,
    snapshot_gib_month: f64,
    store_calls_10k: f64,
    volume_gib: f64,
    snapshot_gib: f64,
}

impl PriceList {
    /// Azure's list prices in East US, as `sim/prices/azure-east-us.toml` has them, with their sources.
    #[must_use]
    pub fn example() -> Self {
        Self::parse(include_str!("../../prices/azure-east-us.toml")).expect("a test reads the shipped example")
    }

    /// Reads a price list in TOML. Every key must be there, and no other.
    ///
    /// # Errors
    /// [`PricesError`].
    pub fn parse(text: &str) -> Result<Self, PricesError> {
        let file: File = toml::from_str(text)?;
        let figures = [
            ("machine_hour", file.machine_hour),
            ("stopped_machine_hour", file.stopped_machine_hour),
            ("volume_gib_month", file.volume_gib_month),
            ("snapshot_gib_month", file.snapshot_gib_month),
            ("store_calls_10k", file.store_calls_10k),
            ("volume_gib", file.volume_gib),
            ("snapshot_gib", file.snapshot_gib),
        ];
        if let Some((key, value)) = figures.into_iter().find(|(_, value)| !(0.0..=1e6).contains(value)) {
            return Err(PricesError::Figure { key, value });
        }
        if !(1..=8).contains(&file.currency.len()) || !file.currency.chars().all(char::is_alphabetic) {
            return Err(PricesError::Currency(file.currency));
        }
        let prices = Prices {
            machine_hour: file.machine_hour,
            stopped_machine_hour: file.stopped_machine_hour,
            volume_gib_month: file.volume_gib_month,
            snapshot_gib_month: file.snapshot_gib_month,
            store_calls_10k: file.store_calls_10k,
        };
        let (volume_gib, snapshot_gib) = (file.volume_gib, file.snapshot_gib);
        Ok(Self { currency: file.currency, prices, volume_gib, snapshot_gib })
    }

    /// What the figures are in.
    #[must_use]
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// What was used, priced. Simulated volumes and snapshots have a GiB each, and count as large as this list says.
    #[must_use]
    pub fn bill(&self, usage: &Usage) -> Bill {
        let volume_byte_ms = usage.volume_byte_ms * self.volume_gib;
        let snapshot_byte_ms = usage.snapshot_byte_ms * self.snapshot_gib;
        Usage { volume_byte_ms, snapshot_byte_ms, ..*usage }.bill(&self.prices)
    }
}
