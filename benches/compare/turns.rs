//! Contenders that take turns, so that what else the machine does hits all of them.

use serde_json::Value;

use super::Result;
use super::numbers::spread;

/// One run of one contender.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// Pictures a second by its own timer.
    pub(crate) own: f64,
    /// Pictures a second of the whole process, from its start to its end.
    pub(crate) whole: Option<f64>,
    /// Peak memory in MB.
    pub(crate) peak: Option<f64>,
    /// What it says besides.
    pub(crate) report: Value,
}

impl Sample {
    /// As a whole process, where it is one.
    pub(crate) fn strict(&self) -> f64 {
        self.whole.unwrap_or(self.own)
    }
}

/// Somebody who does the job, and how it went.
pub(crate) struct Contender<'a> {
    pub(crate) name: String,
    /// How it does it.
    pub(crate) way: String,
    run: Box<dyn FnMut() -> Result<Sample> + 'a>,
    /// A sample of each round, or why there is none.
    pub(crate) outcome: std::result::Result<Vec<Sample>, String>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(
        name: impl Into<String>,
        way: impl Into<String>,
        run: impl FnMut() -> Result<Sample> + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            way: way.into(),
            run: Box::new(run),
            outcome: Ok(Vec::new()),
        }
    }

    /// One that can't take part.
    pub(crate) fn absent(name: impl Into<String>, reason: impl ToString) -> Self {
        let mut contender = Self::new(name, "", || Err("it takes no part".into()));
        contender.outcome = Err(reason.to_string());
        contender
    }

    pub(crate) fn samples(&self) -> &[Sample] {
        self.outcome.as_deref().unwrap_or_default()
    }

    /// Minimum, median and maximum of something; `None` where it is nowhere.
    pub(crate) fn spread(&self, of: impl Fn(&Sample) -> Option<f64>) -> Option<(f64, f64, f64)> {
        let values: Vec<f64> = self.samples().iter().filter_map(of).collect();
        (!values.is_empty()).then(|| spread(&values))
    }
}

/// Everybody once a round, in one order and then in the other. Who fails is out.
pub(crate) fn take_turns(contenders: &mut [Contender<'_>], rounds: usize) {
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let contender = &mut contenders[index];
            let Ok(samples) = &mut contender.outcome else { continue };
            match (contender.run)() {
                Ok(sample) => {
                    eprintln!("  round {}  {:7.1}/s  {}", round + 1, sample.own, contender.name);
                    samples.push(sample);
                }
                Err(problem) => {
                    eprintln!("  round {}  {}: {problem}", round + 1, contender.name);
                    contender.outcome = Err(problem.to_string());
                }
            }
        }
    }
}

/// How many times as fast `one` is as `other`, round by round: minimum, median and maximum.
pub(crate) fn ratio(
    one: &Contender<'_>,
    by: impl Fn(&Sample) -> f64,
    other: &Contender<'_>,
    other_by: impl Fn(&Sample) -> f64,
) -> Option<(f64, f64, f64)> {
    let pairs = one.samples().iter().zip(other.samples());
    let ratios: Vec<f64> = pairs.map(|(one, other)| by(one) / other_by(other)).collect();
    (!ratios.is_empty()).then(|| spread(&ratios))
}
