//! How sure a mean over several seeds is.

use std::fmt;

/// A mean with its confidence interval of 95 %, by Student's distribution: the values are taken to be independent, each seed's for itself,
/// and their mean to be about normal (Law, *Simulation Modeling and Analysis*, 5th ed., §9.4.1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The values' mean.
    pub mean: f64,
    /// The interval reaches from so much below the mean to so much above it.
    pub half_width: f64,
}

impl Interval {
    /// `None` for fewer than two values: nothing is known of how they differ.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        let quantile = student(values.len().checked_sub(1)?)?;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
        Some(Self { mean, half_width: quantile * (variance / n).sqrt() })
    }

    /// Its lower end.
    #[must_use]
    pub fn low(&self) -> f64 {
        self.mean - self.half_width
    }
}

impl fmt::Display for Interval {
    /// `12.3 ± 0.4`, with as many places as the formatter asks for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = f.precision().unwrap_or(1);
        write!(f, "{:.places$} ± {:.places$}", self.mean, self.half_width)
    }
}

/// The 97.5 % quantile of Student's distribution: a table for up to 30 degrees of freedom, and beyond the expansion about the normal
/// quantile (Abramowitz & Stegun, *Handbook of Mathematical Functions*, 26.7.5), which is right there to five digits. `None` for 0.
fn student(degrees: usize) -> Option<f64> {
    const TABLE: [f64; 30] = [
        12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604,
        2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518,
        2.0484, 2.0452, 2.0423,
    ];
    /// The normal distribution's 97.5 % quantile.
    const Z: f64 = 1.959_964;
    let listed = TABLE.get(degrees.checked_sub(1)?).copied();
    let n = degrees as f64;
    let first = (Z.powi(3) + Z) / 4.0;
    let second = (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / 96.0;
    Some(listed.unwrap_or(Z + first / n + second / (n * n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn students_quantiles_are_those_of_the_tables() {
        // NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, the column 0.975.
        for (degrees, table) in [
            (1, 12.706),
            (2, 4.303),
            (4, 2.776),
            (11, 2.201),
            (19, 2.093),
            (30, 2.042),
            (31, 2.040),
            (60, 2.000),
            (100, 1.984),
        ] {
            let quantile = student(degrees).unwrap();
            assert!((quantile - table).abs() < 6e-4, "{degrees}: {quantile}, not {table}");
        }
        assert_eq!(student(0), None);
    }

    #[test]
    fn the_interval_is_the_textbooks() {
        // Student's own example (Biometrika 6, 1908): hours of sleep gained under two drugs, ten patients, paired. Mean 1.58, and
        // 0.70 to 2.46 with 95 % confidence.
        let gained = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4];
        let interval = Interval::of(&gained).unwrap();
        assert!((interval.mean - 1.58).abs() < 1e-9 && (interval.low() - 0.700).abs() < 1e-3, "{interval:?}");
        assert_eq!(format!("{interval:.2}"), "1.58 ± 0.88");
        assert_eq!(Interval::of(&[1.0]), None);
        assert_eq!(Interval::of(&[2.0, 2.0]).unwrap().half_width, 0.0);
    }
}
