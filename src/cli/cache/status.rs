//! `lastlayer cache status`.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::super::context::Context;
use super::super::output::{Ending, Result, counted, print_json};
use super::{ago, bytes};
use crate::upkeep::{CacheStatus, DatasetStatus, status};

pub(super) fn run(context: &Context) -> Result<Ending> {
    let status = status(&context.cache)?;
    if context.json {
        print_json(&as_json(&status, context))?;
    } else {
        print(&status, context)?;
    }
    Ok(Ending::Done)
}

fn seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn as_json(status: &CacheStatus, context: &Context) -> Value {
    let spaces = status.spaces.iter().map(|space| {
        json!({
            "space": space.space.id().to_string(),
            "description": serde_json::from_str::<Value>(space.space.json()).unwrap_or_default(),
            "backbone": space.origin.as_ref().map(|origin| &origin.name),
            "backbone_file": space.origin.as_ref().map(|origin| origin.file.to_string_lossy()),
            "rows": space.rows,
            "views": space.views,
            "feature_dim": space.dim,
            "segments": space.segments,
            "bytes": space.bytes,
            "computed_by": space.computed_by.iter().map(|(device, runtime)| json!({"device": device, "runtime": runtime})).collect::<Vec<_>>(),
            "damaged": space.damaged.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
            "last_used": seconds(space.last_used),
        })
    });
    let datasets = status.datasets.iter().map(|dataset| {
        json!({
            "dataset": dataset.name.to_string_lossy(),
            "kind": dataset.kind,
            "images": dataset.images,
            "failed": dataset.failed,
            "unseen": dataset.unseen,
            "classes": dataset.classes,
            "is_there": dataset.is_there,
            "bytes": dataset.bytes,
            "last_used": seconds(dataset.last_used),
        })
    });
    json!({
        "cache": context.cache.root().to_string_lossy(),
        "rows": status.spaces.iter().map(|space| space.rows).sum::<usize>(),
        "bytes": status.bytes(),
        "spaces": spaces.collect::<Vec<_>>(),
        "datasets": datasets.collect::<Vec<_>>(),
        "damaged_records": status.damaged_records.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
    })
}

fn print(status: &CacheStatus, context: &Context) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for space in &status.spaces {
        let name = space
            .origin
            .as_ref()
            .map_or("unknown backbone", |origin| origin.name.as_str());
        writeln!(
            out,
            "space {}  {name}: {}{}, {}, {}, {}, used {}",
            &space.space.id().to_string()[..8],
            counted(space.rows, "row"),
            match space.views {
                0 => String::new(),
                views => format!(" ({views} of random views)"),
            },
            space.dim.map_or("no dimension".to_owned(), |dim| format!("{dim}-d")),
            counted(space.segments, "segment"),
            bytes(space.bytes),
            ago(space.last_used)
        )?;
        if !space.damaged.is_empty() {
            writeln!(out, "  {} set aside or damaged", counted(space.damaged.len(), "file"))?;
        }
    }
    for dataset in &status.datasets {
        print_dataset(&mut out, dataset)?;
    }
    for path in &status.damaged_records {
        writeln!(out, "{}: this record of a data set is damaged", path.display())?;
    }
    writeln!(
        out,
        "{}: {}, {}, {}",
        context.cache.root().display(),
        counted(status.spaces.len(), "space"),
        counted(status.datasets.len(), "data set"),
        bytes(status.bytes())
    )?;
    Ok(out.flush()?)
}

fn print_dataset(out: &mut impl Write, dataset: &DatasetStatus) -> std::io::Result<()> {
    let mut parts = vec![counted(dataset.images, "image")];
    if dataset.failed > 0 {
        parts.push(format!("{} failed", dataset.failed));
    }
    if dataset.unseen > 0 {
        parts.push(format!("{} not extracted yet", dataset.unseen));
    }
    if !dataset.is_there {
        parts.push("no longer there".to_owned());
    }
    writeln!(
        out,
        "data set {}: {}, used {}",
        dataset.name.display(),
        parts.join(", "),
        ago(dataset.last_used)
    )
}
