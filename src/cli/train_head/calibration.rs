//! The temperature of the heads that are saved, and what is said where there is none.

use serde_json::{Value, json};

use super::super::output::counted;
use super::Job;
use crate::error::Result;
use crate::features::LabelledFeatures;
use crate::head::LinearHead;
use crate::metrics::{Fitted, TemperatureFit, fit_temperature_watched};
use crate::observer::{Observer, Quiet};

/// How a head came to its temperature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Calibration {
    /// On the validation pictures; [`Fitted`] says whether that told anything.
    Fitted(TemperatureFit),
    /// There is no validation picture.
    NoValidation,
    /// Of folds, every picture trains the head that is saved.
    Folds,
    /// `--no-calibration`.
    Off,
}

impl Calibration {
    /// Fits a temperature on the validation pictures, where there are some and it is wanted.
    ///
    /// # Errors
    /// [`Error::Examples`](crate::Error::Examples) for logits that are infinite or NaN.
    pub(super) fn of(job: &Job<'_>, features: &LabelledFeatures, head: &LinearHead) -> Result<Self> {
        if !job.calibrates {
            return Ok(Self::Off);
        }
        if job.folds.is_some() {
            return Ok(Self::Folds);
        }
        if features.val.labels.is_empty() {
            return Ok(Self::NoValidation);
        }
        let logits = head.logits(features.val.view())?;
        // After Ctrl-C what was trained is still to be saved, with its temperature.
        let observer: &dyn Observer = match job.context.observer.interrupted() {
            true => &Quiet,
            false => &job.context.observer,
        };
        fit_temperature_watched(logits.view(), &features.val.labels, observer).map(Self::Fitted)
    }

    pub(super) fn temperature(&self) -> f64 {
        match self {
            Self::Fitted(fit) => fit.temperature,
            _ => 1.0,
        }
    }

    /// Why the temperature is not that of a minimum, in words.
    fn note(&self) -> Option<&'static str> {
        match self {
            Self::Fitted(fit) => fit.fitted.note(),
            Self::NoValidation => Some("there is no validation picture to fit a temperature on: it is 1"),
            Self::Folds => Some("with --folds every picture trains, none is left to fit a temperature on: it is 1"),
            Self::Off => Some("--no-calibration leaves the temperature at 1"),
        }
    }

    /// As the command's JSON has it: `fitted` (`minimum`, or why there is none), `temperature`, the losses where something was
    /// fitted, `note`.
    pub(super) fn to_json(self) -> Value {
        let mut json = match self {
            Self::Fitted(fit) => json!(fit),
            Self::NoValidation => json!({ "temperature": 1.0, "fitted": "no_validation" }),
            Self::Folds => json!({ "temperature": 1.0, "fitted": "folds" }),
            Self::Off => json!({ "temperature": 1.0, "fitted": "off" }),
        };
        json["note"] = json!(self.note());
        json
    }
}

/// Says once why heads that were saved have no temperature, or one at the bound of what is looked at.
pub(super) fn tell(heads: &[Calibration], observer: &dyn Observer) {
    let mut told: Vec<&str> = Vec::new();
    for calibration in heads {
        // What was asked for is no news, and that no picture validates has its own warning.
        if matches!(calibration, Calibration::Off | Calibration::NoValidation) {
            continue;
        }
        let Some(note) = calibration.note().filter(|note| !told.contains(note)) else {
            continue;
        };
        told.push(note);
        let alike = heads.iter().filter(|other| other.note() == Some(note)).count();
        let text = match heads.len() {
            1 => note.to_owned(),
            all => format!("{alike} of {} saved: {note}", counted(all, "head")),
        };
        match calibration {
            Calibration::Fitted(TemperatureFit {
                fitted: Fitted::LowerEnd | Fitted::UpperEnd,
                ..
            }) => observer.warn(&text),
            _ => observer.note(&text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::observer::Unit;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Heard {
        fn hear(&self, text: String) {
            self.0.lock().expect("no test panics here").push(text);
        }
    }

    impl Observer for Heard {
        fn begin(&self, _: &str, _: Option<u64>, _: Unit) {}
        fn advance(&self, _: u64) {}
        fn end(&self) {}
        fn note(&self, message: &str) {
            self.hear(format!("note: {message}"));
        }
        fn warn(&self, message: &str) {
            self.hear(format!("warning: {message}"));
        }
    }

    fn fit(fitted: Fitted) -> Calibration {
        Calibration::Fitted(TemperatureFit {
            temperature: 2.0,
            fitted,
            loss_before: 0.5,
            loss_after: 0.25,
        })
    }

    fn said(heads: &[Calibration]) -> Vec<String> {
        let heard = Heard::default();
        tell(heads, &heard);
        heard.0.into_inner().expect("no test panics here")
    }

    #[test]
    fn each_reason_is_said_once_with_how_many_heads_have_it() {
        assert!(said(&[fit(Fitted::Minimum), Calibration::Off]).is_empty());
        let one = said(&[fit(Fitted::NoMistakes)]);
        assert!(
            one.len() == 1 && one[0].starts_with("note: no validation picture is"),
            "{one:?}"
        );
        let some = [Fitted::Minimum, Fitted::UpperEnd, Fitted::NoMistakes, Fitted::UpperEnd].map(fit);
        let some = said(&some);
        assert_eq!(some.len(), 2, "{some:?}");
        assert!(some[0].starts_with("warning: 2 of 4 heads saved: "), "{some:?}");
        assert!(some[1].starts_with("note: 1 of 4 heads saved: "), "{some:?}");
        assert_eq!(said(&[Calibration::Folds; 3]).len(), 1);
    }

    #[test]
    fn json_says_how_the_temperature_came_about() {
        let json = fit(Fitted::Minimum).to_json();
        assert_eq!((&json["fitted"], &json["note"]), (&json!("minimum"), &Value::Null));
        assert_eq!((&json["temperature"], &json["loss_after"]), (&json!(2.0), &json!(0.25)));
        for (calibration, word) in [
            (fit(Fitted::NoMistakes), "no_mistakes"),
            (Calibration::NoValidation, "no_validation"),
            (Calibration::Folds, "folds"),
            (Calibration::Off, "off"),
        ] {
            let json = calibration.to_json();
            assert_eq!(json["fitted"], word);
            assert!(json["note"].is_string());
        }
    }
}
