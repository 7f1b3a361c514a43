//! Which features of a data set are meant: options that several verbs share.

use clap::Args;
use regex::Regex;

use super::context::Context;
use super::extract::{DecodeArgument, InputArguments};
use crate::error::Result;
use crate::features::{FeatureRequest, SpaceChoice, VAL_FRACTION};
use crate::views::{MOST_VIEWS, RandomViews};

/// Which of several spaces is meant.
#[derive(Debug, Args)]
pub(super) struct SpaceArguments {
    /// Which features, where the cache has several: those of this backbone
    #[arg(long, value_name = "NAME|FILE.onnx")]
    backbone: Option<String>,
    /// Which features, where the cache has several: the space whose id begins so
    #[arg(long, value_name = "ID")]
    space: Option<String>,
    /// Which features, where the cache has several: those of pictures decoded so
    #[arg(long, value_name = "HOW", value_enum)]
    decode: Option<DecodeArgument>,
}

impl SpaceArguments {
    /// A backbone that is here is known by its bytes too, whatever it was called when it was extracted.
    pub(super) fn choice(self, context: &Context) -> SpaceChoice {
        let file = self.backbone.as_deref().and_then(|name| context.local_backbone(name));
        SpaceChoice {
            backbone_blake3: file
                .and_then(|file| std::fs::read(file).ok())
                .map(|bytes| blake3::hash(&bytes).to_hex().to_string()),
            backbone: self.backbone,
            space: self.space,
            decode: self.decode.map(Into::into),
            precision: context.precision,
        }
    }
}

/// How a data set without a validation split gets one.
#[derive(Debug, Args)]
pub(super) struct SplitArguments {
    /// Share of each class that validates, where the data set has no val split [default: 0.3]
    #[arg(long, value_name = "F")]
    pub(super) val_fraction: Option<f64>,
    /// Keep pictures together whose path gives the same text here: its first (…), or all that matches
    #[arg(long, value_name = "REGEX")]
    pub(super) group_by: Option<Regex>,
}

/// Which random views of the training pictures are meant.
#[derive(Debug, Args)]
pub(super) struct ViewArguments {
    /// Random views of each training picture, as `extract --views` stored them [default: none]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(0..=i64::from(MOST_VIEWS)))]
    pub(super) views: Option<u16>,
    /// Seed of the random views [default: 0]
    #[arg(long, value_name = "N")]
    pub(super) views_seed: Option<u16>,
}

/// All of the above together, as it was given.
#[derive(Debug, Args)]
pub(super) struct SelectionArguments {
    #[command(flatten)]
    space: SpaceArguments,
    #[command(flatten)]
    split: SplitArguments,
    #[command(flatten)]
    views: ViewArguments,
    // With a heading of its own it is last: that goes for all that follows.
    #[command(flatten)]
    input: InputArguments,
}

impl SelectionArguments {
    /// The features that are asked for.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) for views that there can't be.
    pub(super) fn request(self, context: &Context) -> Result<FeatureRequest> {
        let (count, seed) = (self.views.views.unwrap_or(0), self.views.views_seed.unwrap_or(0));
        Ok(FeatureRequest {
            input: self.input.options(),
            space: self.space.choice(context),
            val_fraction: self.split.val_fraction.unwrap_or(VAL_FRACTION),
            group_by: self.split.group_by,
            views: RandomViews::new(count.into(), seed.into())?,
        })
    }

    /// The first option that was given and says which pictures or which of their features are meant.
    pub(super) fn given(&self) -> Option<&'static str> {
        let options = [
            ("--backbone", self.space.backbone.is_some()),
            ("--space", self.space.space.is_some()),
            ("--decode", self.space.decode.is_some()),
            ("--val-fraction", self.split.val_fraction.is_some()),
            ("--group-by", self.split.group_by.is_some()),
            ("--views", self.views.views.is_some()),
            ("--views-seed", self.views.views_seed.is_some()),
        ];
        let given = options.iter().find(|(_, given)| *given).map(|(name, _)| *name);
        given.or_else(|| self.input.given())
    }
}
