//! What threads are given to do, in which order.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::{Seen, Subject};
use super::*;
use crate::dataset::Stamp;
use crate::picture::{Completeness, Room};
use crate::views::View;

const CAPACITY: Capacity = Capacity {
    pictures: 3,
    tensors: 6,
    batch: 4,
    sessions: 2,
};

fn subject(index: usize) -> Subject {
    Subject {
        index,
        stamp: Stamp::default(),
        content: Some([0; 32]),
    }
}

fn picture(index: usize) -> ReadPicture {
    ReadPicture {
        subject: subject(index),
        bytes: Vec::new(),
        _room: Room::of_file(0),
        views: vec![View::Plain],
    }
}

fn tensor(index: usize) -> Tensor {
    Tensor {
        seen: Seen {
            subject: subject(index),
            completeness: Completeness::Whole,
            view: View::Plain,
            following: 0,
            of: 1,
        },
        values: Vec::new(),
    }
}

/// What a task is about: `decode 3`, `infer 0 1 2`.
fn told(task: Option<Task>) -> String {
    match task {
        None => "nothing".to_owned(),
        Some(Task::Decode(picture)) => format!("decode {}", picture.subject.index),
        Some(Task::Infer(batch)) => {
            let indexes: Vec<String> = batch
                .iter()
                .map(|tensor| tensor.seen.subject.index.to_string())
                .collect();
            format!("infer {}", indexes.join(" "))
        }
    }
}

#[test]
fn a_full_batch_goes_before_the_next_picture_and_a_picture_before_a_short_batch() {
    let backlog = Backlog::new(1, 100, CAPACITY);
    backlog.let_workers_infer();
    for index in 0..2 {
        assert!(backlog.offer(picture(index)));
    }
    for index in 10..13 {
        assert!(backlog.put(tensor(index), Role::Worker));
    }
    assert_eq!(told(backlog.next(Role::Worker)), "decode 0");
    assert!(backlog.put(tensor(0), Role::Worker));
    backlog.is_decoded();
    assert_eq!(told(backlog.next(Role::Worker)), "infer 10 11 12 0");
    assert!(backlog.put(tensor(13), Role::Worker));
    assert_eq!(told(backlog.next(Role::Worker)), "decode 1");
    // What is being decoded may take long.
    assert_eq!(told(backlog.next(Role::Device)), "infer 13");
    backlog.is_decoded();
    backlog.reader_is_done();
    assert_eq!(told(backlog.next(Role::Worker)), "nothing");
}

#[test]
fn the_last_pictures_are_divided_among_the_sessions() {
    let backlog = Backlog::new(0, 5, CAPACITY);
    backlog.let_workers_infer();
    (0..5).for_each(|index| assert!(backlog.put(tensor(index), Role::Worker)));
    assert_eq!(told(backlog.next(Role::Worker)), "infer 0 1 2");
    assert_eq!(told(backlog.next(Role::Worker)), "infer 3");
    assert_eq!(told(backlog.next(Role::Worker)), "infer 4");
    assert_eq!(told(backlog.next(Role::Worker)), "nothing");
    // A picture without a feature is none of those that are left.
    let backlog = Backlog::new(0, 5, CAPACITY);
    backlog.let_workers_infer();
    backlog.leave_out();
    (0..4).for_each(|index| assert!(backlog.put(tensor(index), Role::Worker)));
    assert_eq!(told(backlog.next(Role::Worker)), "infer 0 1");
}

#[test]
fn a_device_gets_its_own_batches_however_many_sessions_were_planned() {
    let backlog = Backlog::new(0, 16, CAPACITY);
    (0..CAPACITY.tensors).for_each(|index| assert!(backlog.put(tensor(index), Role::Worker)));
    backlog.let_device_infer(7);
    // Two of its batches may wait, and the last one is not divided.
    (6..14).for_each(|index| assert!(backlog.put(tensor(index), Role::Worker)));
    assert_eq!(told(backlog.next(Role::Device)), "infer 0 1 2 3 4 5 6");
    (14..16).for_each(|index| assert!(backlog.put(tensor(index), Role::Worker)));
    assert_eq!(told(backlog.next(Role::Device)), "infer 7 8 9 10 11 12 13");
    assert_eq!(told(backlog.next(Role::Device)), "infer 14 15");
    assert_eq!(told(backlog.next(Role::Device)), "nothing");
}

#[test]
fn nobody_decodes_more_than_may_wait_while_nobody_infers() {
    let backlog = Backlog::new(1, 100, CAPACITY);
    (0..CAPACITY.tensors).for_each(|index| assert!(backlog.put(tensor(index), Role::Worker)));
    assert!(backlog.offer(picture(50)));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| (told(backlog.next(Role::Worker)), backlog.put(tensor(60), Role::Worker)));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        backlog.let_workers_infer();
        assert_eq!(waiting.join().ok(), Some(("infer 0 1 2 3".to_owned(), true)));
    });
}

#[test]
fn a_reader_waits_for_room_and_whoever_waits_ends_when_the_run_does() {
    let backlog = Backlog::new(2, 100, CAPACITY);
    assert!((0..CAPACITY.pictures).all(|index| backlog.offer(picture(index))));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| backlog.offer(picture(3)));
        let device = scope.spawn(|| told(backlog.next(Role::Device)));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!reader.is_finished() && !device.is_finished());
        backlog.close();
        assert_eq!(reader.join().ok(), Some(false));
        assert_eq!(device.join().ok(), Some("nothing".to_owned()));
    });
    assert!(!backlog.put(tensor(0), Role::Worker) && !backlog.offer(picture(0)) && !backlog.begins());
}

#[test]
fn a_run_without_a_picture_begins_never() {
    let backlog = Backlog::new(1, 0, CAPACITY);
    std::thread::scope(|scope| {
        let opener = scope.spawn(|| backlog.begins());
        backlog.reader_is_done();
        assert_eq!(opener.join().ok(), Some(false));
    });
    assert_eq!(told(backlog.next(Role::Worker)), "nothing");
}

#[test]
fn every_picture_comes_through_once_whoever_works() {
    for (workers, device) in [(1, false), (4, false), (3, true)] {
        const COUNT: usize = 500;
        let backlog = Backlog::new(2, COUNT, CAPACITY);
        let inferred: Vec<AtomicUsize> = (0..COUNT).map(|_| AtomicUsize::new(0)).collect();
        let next = AtomicUsize::new(0);
        let work = |role| {
            while let Some(task) = backlog.next(role) {
                match task {
                    Task::Decode(picture) => {
                        assert!(backlog.put(tensor(picture.subject.index), Role::Worker));
                        backlog.is_decoded();
                    }
                    Task::Infer(batch) => {
                        assert!((1..=CAPACITY.batch).contains(&batch.len()));
                        for tensor in batch {
                            inferred[tensor.seen.subject.index].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= COUNT {
                            break;
                        }
                        assert!(backlog.offer(picture(index)));
                    }
                    backlog.reader_is_done();
                });
            }
            (0..workers).for_each(|_| drop(scope.spawn(|| work(Role::Worker))));
            scope.spawn(|| {
                assert!(backlog.begins());
                if device {
                    work(Role::Device);
                } else {
                    backlog.let_workers_infer();
                }
            });
        });
        assert!(
            inferred.iter().all(|count| count.load(Ordering::Relaxed) == 1),
            "{workers}"
        );
    }
}

#[test]
fn who_only_decodes_stops_when_enough_waits_and_who_only_runs_batches_decodes_nothing() {
    let backlog = Backlog::new(1, 100, CAPACITY);
    backlog.let_workers_infer();
    (0..CAPACITY.tensors).for_each(|index| assert!(backlog.put(tensor(index), Role::Decoder)));
    assert!(backlog.offer(picture(50)));
    assert!(backlog.full_batch(Role::Decoder).is_none());
    std::thread::scope(|scope| {
        let decoder = scope.spawn(|| {
            (
                backlog.put(tensor(60), Role::Decoder),
                told(backlog.next(Role::Decoder)),
            )
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(!decoder.is_finished());
        assert_eq!(told(backlog.next(Role::Runner)), "infer 0 1 2 3");
        assert_eq!(decoder.join().ok(), Some((true, "decode 50".to_owned())));
    });
    backlog.is_decoded();
    assert_eq!(told(backlog.next(Role::Runner)), "infer 4 5 60");
}
