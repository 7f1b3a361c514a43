//! `lastlayer cache explain`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::super::context::Context;
use super::super::extract::{BackboneArguments, FeatureArguments, InputArguments};
use super::super::output::{Ending, Result, counted, print_json};
use crate::dataset::Dataset;
use crate::explain::{Explanation, PictureExplanation, RowState, explain_dataset, explain_picture};
use crate::observer::Observer;
use crate::picture::Truncated;
use crate::space::{FeatureOptions, SpaceDescription};
use crate::views::in_words;

/// Missed pictures of a data set listed one by one for people; `--json` lists all.
const LISTED: usize = 20;

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// A picture, or a data set as it is given to `extract`
    #[arg(value_name = "PICTURE|DATASET")]
    subject: PathBuf,
    #[command(flatten)]
    backbone: BackboneArguments,
    #[command(flatten)]
    features: FeatureArguments,
    /// Count features of what there is of pictures that are cut off
    #[arg(long)]
    accept_truncated: bool,
    #[command(flatten)]
    input: InputArguments,
}

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<Ending> {
    let Arguments {
        subject,
        backbone,
        features,
        accept_truncated,
        input,
    } = arguments;
    let truncated = match accept_truncated {
        true => Truncated::Accept,
        false => Truncated::Reject,
    };
    let wanted = wanted(&backbone, &features.options(context), context)?;
    let options = input.options();
    let explanation = match Dataset::open_listed(&subject, &options)? {
        Some(dataset) => explain_dataset(&context.cache, &dataset, wanted.as_ref(), truncated)?,
        None => explain_picture(&context.cache, &subject, wanted.as_ref(), truncated)?,
    };
    if context.json {
        print_json(&explanation)?;
    } else {
        print(&explanation)?;
    }
    Ok(Ending::Done)
}

/// The space that `extract` would use with these options, if the backbone is here.
fn wanted(
    arguments: &BackboneArguments,
    options: &FeatureOptions,
    context: &Context,
) -> Result<Option<SpaceDescription>> {
    let Some(file) = context.local_backbone(&arguments.backbone) else {
        context.observer.warn(&format!(
            "backbone {} is not on this computer: looking in all spaces; name another with --backbone",
            arguments.backbone
        ));
        return Ok(None);
    };
    let backbone = context.backbone_file(&arguments.backbone, &file, arguments.feature.as_deref())?;
    Ok(Some(backbone.space(options)?))
}

fn print(explanation: &Explanation) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if let Some(wanted) = &explanation.wanted {
        writeln!(out, "space asked for: {}", &wanted[..8])?;
    }
    for picture in explanation.pictures.iter().take(LISTED) {
        print_picture(&mut out, picture, explanation)?;
    }
    if explanation.pictures.len() > LISTED {
        writeln!(
            out,
            "  and {} more; --json lists all",
            explanation.pictures.len() - LISTED
        )?;
    }
    for space in &explanation.spaces {
        let here = explanation.wanted.as_ref() == Some(&space.space);
        writeln!(
            out,
            "space {} ({}): {} of {}{}{}",
            &space.space[..8],
            space.backbone.as_deref().unwrap_or("unknown backbone"),
            space.rows,
            counted(explanation.images, "picture"),
            match space.views {
                0 => String::new(),
                views => format!(", {}", counted(views, "random view")),
            },
            if here { ", the one asked for" } else { "" }
        )?;
        for difference in &space.differs {
            writeln!(out, "  {difference}")?;
        }
    }
    if explanation.spaces.is_empty() {
        writeln!(out, "the cache has no space")?;
    }
    writeln!(
        out,
        "{}: {} in the cache, {} to be computed",
        counted(explanation.images, "picture"),
        explanation.hits,
        explanation.images - explanation.hits
    )?;
    Ok(out.flush()?)
}

fn print_picture(out: &mut impl Write, picture: &PictureExplanation, explanation: &Explanation) -> std::io::Result<()> {
    let verdict = if picture.miss.is_none() { "hit" } else { "miss" };
    writeln!(out, "{}: {verdict}: {}", picture.path.display(), picture.detail)?;
    if let Some(content) = &picture.content {
        writeln!(out, "  blake3 {content}")?;
    }
    for row in picture
        .rows
        .iter()
        .filter(|row| row.row != RowState::Absent || !row.views.is_empty())
    {
        let state = match row.row {
            RowState::Present => "a row, its checksum right",
            RowState::Partial => "a row of what there is of it",
            RowState::Damaged => "a damaged row",
            RowState::Absent => "no plain row",
        };
        let views = match in_words(&row.views) {
            none if none.is_empty() => none,
            views => format!("; {views}"),
        };
        writeln!(out, "  in space {}: {state}{views}", &row.space[..8])?;
    }
    if explanation.images == 1 {
        for remembered in &picture.remembered {
            let then = match (&remembered.content, remembered.same_bytes) {
                (Some(_), true) => "with the same bytes".to_owned(),
                (Some(content), false) => format!("with other bytes, blake3 {content}"),
                (None, _) => "unread".to_owned(),
            };
            let failure = remembered
                .failure
                .as_ref()
                .map_or_else(String::new, |failure| format!("; {failure}"));
            writeln!(out, "  in data set {}: {then}{failure}", remembered.dataset.display())?;
        }
    }
    Ok(())
}
