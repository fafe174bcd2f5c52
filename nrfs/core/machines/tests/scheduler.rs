//! The scheduler under random operations and core failures: its invariants, and its promises.

use std::collections::{BTreeMap, BTreeSet};

use machines::scheduler::{
    Answer, CoreId, CoreState, ExecutorId, NodeId, ProcessId, Reason, Response, Scheduler, Upcall, WriteOperation,
};
use machines::types::Errno;
use nr::Dispatch;
use proptest::prelude::*;

/// `cores` cores, the lower half on node 0 and the upper half on node 1.
fn scheduler(cores: usize) -> Scheduler {
    Scheduler::new((0..cores).map(|core| (CoreId(core), NodeId(usize::from(core >= cores / 2)))))
}

fn create(scheduler: &mut Scheduler) -> ProcessId {
    match scheduler.dispatch_mut(&WriteOperation::Create) {
        Ok(Answer::Process(process)) => process,
        other => panic!("{other:?}"),
    }
}

fn request(scheduler: &mut Scheduler, process: ProcessId, cores: usize) -> Response {
    scheduler.dispatch_mut(&WriteOperation::Request { process, cores })
}

/// A new process that wants `cores` cores.
fn process(scheduler: &mut Scheduler, cores: usize) -> ProcessId {
    let process = create(scheduler);
    request(scheduler, process, cores).unwrap();
    process
}

fn cores_of(scheduler: &Scheduler, process: ProcessId) -> Vec<usize> {
    scheduler.status(process).unwrap().cores.iter().map(|core| core.0).collect()
}

fn upcalls(scheduler: &mut Scheduler, process: ProcessId) -> Vec<Upcall> {
    match scheduler.dispatch_mut(&WriteOperation::TakeUpcalls(process)) {
        Ok(Answer::Upcalls(upcalls)) => upcalls,
        other => panic!("{other:?}"),
    }
}

fn executor(scheduler: &Scheduler, core: usize) -> ExecutorId {
    match scheduler.state(CoreId(core)) {
        Ok(CoreState::Running(_, executor)) => executor,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_process_grows_on_the_node_where_it_runs() {
    let mut scheduler = scheduler(8);
    let (first, second) = (process(&mut scheduler, 2), process(&mut scheduler, 2));
    assert_eq!((cores_of(&scheduler, first), cores_of(&scheduler, second)), (vec![0, 1], vec![4, 5]));
    request(&mut scheduler, second, 4).unwrap();
    assert_eq!(cores_of(&scheduler, second), [4, 5, 6, 7]);
    request(&mut scheduler, first, 5).unwrap();
    assert_eq!(cores_of(&scheduler, first), [0, 1, 2, 3], "the other has no more than its share");
    scheduler.dispatch_mut(&WriteOperation::Exit(second)).unwrap();
    request(&mut scheduler, first, 6).unwrap();
    request(&mut scheduler, first, 4).unwrap();
    assert_eq!(cores_of(&scheduler, first), [0, 1, 2, 3], "it gives up first where it has the fewest");
}

#[test]
fn a_core_that_is_taken_to_share_is_told_to_both() {
    let mut scheduler = scheduler(2);
    let first = process(&mut scheduler, 2);
    let (low, high) = (executor(&scheduler, 0), executor(&scheduler, 1));
    let given = |core, executor| Upcall::Given { core: CoreId(core), executor };
    assert_eq!(upcalls(&mut scheduler, first), [given(0, low), given(1, high)]);
    let second = process(&mut scheduler, 1);
    let taken = Upcall::Taken { core: CoreId(1), executor: high, reason: Reason::Share };
    assert_eq!(upcalls(&mut scheduler, first), [taken]);
    let another = executor(&scheduler, 1);
    assert_eq!(upcalls(&mut scheduler, second), [given(1, another)]);
    assert_eq!(upcalls(&mut scheduler, second), []);
}

#[test]
fn an_executor_is_used_again_on_its_node_and_lost_only_with_its_core() {
    let mut scheduler = scheduler(4);
    let one = process(&mut scheduler, 2);
    let before = [executor(&scheduler, 0), executor(&scheduler, 1)];
    scheduler.dispatch_mut(&WriteOperation::Release { process: one, core: CoreId(1) }).unwrap();
    assert_eq!(scheduler.status(one).unwrap().cached_executors, 1);
    request(&mut scheduler, one, 2).unwrap();
    assert_eq!(([executor(&scheduler, 0), executor(&scheduler, 1)], scheduler.executors_made()), (before, 2));
    scheduler.dispatch_mut(&WriteOperation::Offline(CoreId(1))).unwrap();
    assert_eq!((cores_of(&scheduler, one), scheduler.executors_made()), (vec![0, 2], 3));
    scheduler.dispatch_mut(&WriteOperation::Fail(CoreId(0))).unwrap();
    scheduler.dispatch_mut(&WriteOperation::Online(CoreId(1))).unwrap();
    assert_eq!((cores_of(&scheduler, one), scheduler.executors_made()), (vec![2, 3], 4));
    assert_eq!(scheduler.dispatch_mut(&WriteOperation::FreeExecutors(one)), Ok(Answer::Executors(1)));
    assert_eq!(scheduler.dispatch_mut(&WriteOperation::FreeExecutors(one)), Ok(Answer::Executors(0)));
}

#[test]
fn a_core_that_came_and_went_unseen_is_not_told() {
    let mut scheduler = scheduler(2);
    let first = process(&mut scheduler, 2);
    upcalls(&mut scheduler, first);
    scheduler.dispatch_mut(&WriteOperation::Fail(CoreId(1))).unwrap();
    for _ in 0..10 {
        scheduler.dispatch_mut(&WriteOperation::Online(CoreId(1))).unwrap();
        scheduler.dispatch_mut(&WriteOperation::Offline(CoreId(1))).unwrap();
    }
    assert!(matches!(upcalls(&mut scheduler, first)[..], [Upcall::Taken { reason: Reason::Failed, .. }]));
}

#[test]
fn misuse_has_its_error_and_changes_nothing() {
    let mut scheduler = scheduler(2);
    let (one, other) = (process(&mut scheduler, 1), process(&mut scheduler, 1));
    scheduler.dispatch_mut(&WriteOperation::Exit(other)).unwrap();
    let before = scheduler.digest();
    for (operation, errno) in [
        (WriteOperation::Exit(other), Errno::ESRCH),
        (WriteOperation::Request { process: other, cores: 1 }, Errno::ESRCH),
        (WriteOperation::Release { process: other, core: CoreId(0) }, Errno::ESRCH),
        (WriteOperation::FreeExecutors(other), Errno::ESRCH),
        (WriteOperation::TakeUpcalls(other), Errno::ESRCH),
        (WriteOperation::Request { process: one, cores: 3 }, Errno::EINVAL),
        (WriteOperation::Release { process: one, core: CoreId(1) }, Errno::EPERM),
        (WriteOperation::Release { process: one, core: CoreId(2) }, Errno::ENODEV),
        (WriteOperation::Fail(CoreId(2)), Errno::ENODEV),
        (WriteOperation::Online(CoreId(0)), Errno::EALREADY),
    ] {
        assert_eq!(scheduler.dispatch_mut(&operation), Err(errno), "{operation:?}");
    }
    assert_eq!(scheduler.digest(), before);
    scheduler.dispatch_mut(&WriteOperation::Offline(CoreId(1))).unwrap();
    assert_eq!(scheduler.dispatch_mut(&WriteOperation::Fail(CoreId(1))), Err(Errno::EALREADY));
    assert_eq!(scheduler.status(other), Err(Errno::ESRCH));
    assert_eq!(scheduler.state(CoreId(2)), Err(Errno::ENODEV));
}

/// A scheduler, a replica of it, and what the processes know by their upcalls.
struct World {
    scheduler: Scheduler,
    replica: Scheduler,
    known: BTreeMap<ProcessId, BTreeMap<CoreId, ExecutorId>>,
}

impl World {
    fn apply(&mut self, operation: WriteOperation) -> Response {
        let answer = self.scheduler.dispatch_mut(&operation);
        assert_eq!(self.replica.dispatch_mut(&operation), answer);
        check(&self.scheduler);
        answer
    }

    /// A process takes its upcalls. Each must fit what the process knew before; then it knows all its cores.
    fn learn(&mut self, process: ProcessId) {
        let Ok(Answer::Upcalls(upcalls)) = self.apply(WriteOperation::TakeUpcalls(process)) else { return };
        let has = self.known.entry(process).or_default();
        for upcall in upcalls {
            match upcall {
                Upcall::Given { core, executor } => assert_eq!(has.insert(core, executor), None),
                Upcall::Taken { core, executor, .. } => assert_eq!(has.remove(&core), Some(executor)),
            }
        }
        let state = |core| self.scheduler.state(core).unwrap();
        assert!(has.iter().all(|(&core, &executor)| state(core) == CoreState::Running(process, executor)));
        assert_eq!(has.len(), self.scheduler.status(process).unwrap().cores.len());
    }
}

/// No core is owned twice or lost, and shares are max-min fair.
fn check(scheduler: &Scheduler) {
    let mut owned = BTreeMap::new();
    let mut executors = BTreeSet::new();
    let statuses: Vec<_> = scheduler.processes().into_iter().map(|id| (id, scheduler.status(id).unwrap())).collect();
    for (process, status) in &statuses {
        assert!(status.cores.len() <= status.wanted);
        assert!(status.upcalls <= 2 * scheduler.cores().len());
        status.cores.iter().for_each(|core| assert_eq!(owned.insert(*core, *process), None, "owned twice"));
    }
    let anyone_hungry = statuses.iter().any(|(_, status)| status.cores.len() < status.wanted);
    for status in scheduler.cores() {
        match status.state {
            CoreState::Running(process, executor) => {
                assert_eq!(owned.remove(&status.core), Some(process));
                assert!(executors.insert(executor), "an executor is on one core");
            }
            CoreState::Idle => assert!(!anyone_hungry, "{:?} is lost", status.core),
            CoreState::Offline => assert!(!owned.contains_key(&status.core)),
        }
    }
    assert!(owned.is_empty());
    let most = statuses.iter().map(|(_, status)| status.cores.len()).max().unwrap_or(0);
    for (process, status) in &statuses {
        assert!(status.cores.len() == status.wanted || status.cores.len() + 1 >= most, "{process:?} has too few");
    }
}

const CORES: usize = 6;

fn any_operation() -> impl Strategy<Value = WriteOperation> {
    let process = || (1..12_u64).prop_map(ProcessId);
    let core = || (0..CORES + 1).prop_map(CoreId);
    prop_oneof![
        3 => Just(WriteOperation::Create),
        1 => process().prop_map(WriteOperation::Exit),
        6 => (process(), 0..CORES + 2).prop_map(|(process, cores)| WriteOperation::Request { process, cores }),
        3 => (process(), core()).prop_map(|(process, core)| WriteOperation::Release { process, core }),
        2 => Just(WriteOperation::Tick),
        1 => core().prop_map(WriteOperation::Offline),
        1 => core().prop_map(WriteOperation::Fail),
        2 => core().prop_map(WriteOperation::Online),
        1 => process().prop_map(WriteOperation::FreeExecutors),
        1 => process().prop_map(WriteOperation::TakeUpcalls),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_core_is_owned_twice_or_lost_and_nobody_starves(
        operations in prop::collection::vec(any_operation(), 1..80)
    ) {
        let mut world = World { scheduler: scheduler(CORES), replica: scheduler(CORES), known: BTreeMap::new() };
        for operation in operations {
            match operation {
                WriteOperation::TakeUpcalls(process) => world.learn(process),
                WriteOperation::Release { process, core } => {
                    world.learn(process);
                    if world.apply(operation).is_ok() {
                        let _ = world.known.entry(process).or_default().remove(&core);
                    }
                }
                _ => drop(world.apply(operation)),
            }
        }
        let _ = world.apply(WriteOperation::Online(CoreId(0)));
        let processes = world.scheduler.processes();
        let wants = |world: &World, process| world.scheduler.status(process).unwrap().wanted > 0;
        let mut waiting: BTreeSet<_> = processes.iter().copied().filter(|&process| wants(&world, process)).collect();
        for _ in &processes {
            let _ = world.apply(WriteOperation::Tick);
            waiting.retain(|&process| world.scheduler.status(process).unwrap().cores.is_empty());
        }
        prop_assert!(waiting.is_empty(), "{waiting:?} never ran");
        processes.into_iter().for_each(|process| world.learn(process));
        prop_assert_eq!(world.scheduler.digest(), world.replica.digest());
    }
}
