use wakebox_abi::window::MOST;

use super::*;
use crate::plan::{Pages, Plan, Sizes};
use crate::x86_64::paging::Rights;

fn plan(windows: u32, memory: u64) -> Plan {
    let pages = Pages {
        start: 0x20_0000,
        len: PAGE_SIZE,
        rights: Rights::EXECUTE,
    };
    let sizes = Sizes {
        memory,
        arena: PAGE_SIZE,
        stack: PAGE_SIZE,
        in_flight: 64,
        instance: PAGE_SIZE,
        trace_records: 0,
        windows,
        processors: 1,
    };
    Plan::new(&[pages], &sizes).unwrap()
}

fn request(to: u64, from: u64, count: u32) -> Request {
    Request {
        page: (to / PAGE_SIZE) as u32,
        from: (from / PAGE_SIZE) as u32,
        count,
    }
}

/// Walks the tables as the processor does, below the root.
fn translate(plan: &Plan, entries: &[u64], address: u64) -> Option<(u64, u64)> {
    let mut table = (address - WINDOWS) / THIRD;
    for level in [2, 1, 0] {
        let entry = entries[(table * ENTRIES + index(address, level) as u64) as usize];
        let led = led_to(entry)?;
        if level == 0 {
            return Some((led, entry & !0x000f_ffff_ffff_f000));
        }
        table = (led - plan.physical(plan.windows)) / PAGE_SIZE;
    }
    None
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|word| u64::from_le_bytes(*word))
        .collect()
}

#[test]
fn who_asks_for_no_windows_gives_no_page_for_them() {
    let plan = plan(0, 4 << 20);
    assert_eq!((plan.windows.len, plan.window_count), (0, 0));
    assert_eq!(plan.window_place().roots().count(), 0);
    assert_eq!(tables(plan.window_place(), &[]), Ok(Vec::new()));
    let asked = request(WINDOWS, HEAP, 1);
    assert_eq!(
        tables(plan.window_place(), &[asked]),
        Err((asked, Answer::NoWindow))
    );
}

#[test]
fn what_is_shown_is_the_heaps_page_to_be_read_and_written_by_ring_3() {
    let plan = plan(65, 16 << 20);
    // Over the end of a table of the first level, in the first window and in the first of the second table of the third.
    let asked = [
        request(WINDOWS + LARGE_PAGE_SIZE - PAGE_SIZE, HEAP + PAGE_SIZE, 3),
        request(window_of(64), HEAP + 9 * PAGE_SIZE, 1),
    ];
    let bytes = tables(plan.window_place(), &asked).unwrap();
    let entries = words(&bytes);
    let heap = plan.physical(plan.heap);
    let rights = to_page(0);
    for (address, page) in [
        (asked[0].page, Some(1)),
        (asked[0].page + 2, Some(3)),
        (asked[0].page - 1, None),
        (asked[0].page + 3, None),
        (asked[1].page, Some(9)),
    ] {
        assert_eq!(
            translate(&plan, &entries, u64::from(address) * PAGE_SIZE),
            page.map(|page| (heap + page * PAGE_SIZE, rights)),
            "{address:#x}"
        );
    }
    // Present, writable, ring 3, accessed, dirty, and not executable.
    assert_eq!(rights, 1 | 2 | 4 | 32 | 64 | 1 << 63);
    assert_eq!(shown(plan.window_place(), &bytes), asked);
}

#[test]
fn what_is_no_page_of_the_heap_is_refused() {
    let plan = plan(1, 4 << 20);
    let end = HEAP + plan.heap.len;
    for (from, count) in [
        (PAGE_SIZE, 1),
        (HEAP - PAGE_SIZE, 1),
        (HEAP - PAGE_SIZE, 2),
        (end - PAGE_SIZE, 2),
        (end, 1),
        (u64::from(u32::MAX) * PAGE_SIZE, MOST),
        (wakebox_abi::layout::SUPERVISOR, 1),
        (wakebox_abi::layout::ARENA, 1),
        (WINDOWS, 1),
    ] {
        let asked = request(WINDOWS, from, count);
        assert_eq!(
            tables(plan.window_place(), &[asked]),
            Err((asked, Answer::NotHeap))
        );
    }
    tables(plan.window_place(), &[request(WINDOWS, end - PAGE_SIZE, 1)]).unwrap();
}

#[test]
fn where_something_lies_nothing_else_is_put_and_of_what_is_refused_nothing_appears() {
    let plan = plan(1, 4 << 20);
    let mut tables = Tables::new(
        plan.window_place(),
        vec![0; (plan.windows.len / 8) as usize],
        None,
    );
    tables
        .show(&request(WINDOWS + 2 * PAGE_SIZE, HEAP, 1))
        .unwrap();
    let again = request(WINDOWS, HEAP + PAGE_SIZE, 4);
    assert_eq!(tables.show(&again), Err(Answer::Taken));
    assert_eq!(tables.shown().len(), 1);
    assert_eq!(translate(&plan, &tables.entries, WINDOWS), None);
}

#[test]
fn what_is_hidden_is_gone_and_its_place_is_free() {
    let plan = plan(2, 8 << 20);
    let mut tables = Tables::new(
        plan.window_place(),
        vec![0; (plan.windows.len / 8) as usize],
        None,
    );
    let asked = request(window_of(1), HEAP + PAGE_SIZE, 600);
    tables.show(&asked).unwrap();
    let used = tables.used;
    // Also where nothing lies.
    let ranges = tables.hide(&request(window_of(1), 0, 700)).unwrap();
    assert_eq!(ranges, [(PAGE_SIZE, 600 * PAGE_SIZE)]);
    assert_eq!(tables.shown(), []);
    assert_eq!(tables.hide(&request(window_of(0), 0, 1)), Ok(Vec::new()));
    assert_eq!(
        tables.hide(&request(window_of(2), 0, 1)),
        Err(Answer::NoWindow)
    );
    tables.show(&asked).unwrap();
    assert_eq!(tables.used, used, "tables stay where they are");
    // Whoever finds them finds as many.
    assert_eq!(
        Tables::new(plan.window_place(), tables.entries, None).used,
        used
    );
}

#[test]
fn tables_end_and_nothing_lies_behind_them() {
    let plan = plan(1, 4 << 20);
    let mut tables = Tables::new(
        plan.window_place(),
        vec![0; (plan.windows.len / 8) as usize],
        None,
    );
    let pages = plan.windows.len / PAGE_SIZE;
    // A table of the first level each, which is more than a guest needs that shows each page once.
    let mut refused = None;
    for at in 0..pages {
        let asked = request(WINDOWS + at * LARGE_PAGE_SIZE, HEAP, 1);
        if let Err(answer) = tables.show(&asked) {
            refused = Some((at, answer));
            break;
        }
    }
    let enough = plan.heap.len / LARGE_PAGE_SIZE + 1;
    let (at, answer) = refused.expect("there is an end");
    assert!(at >= enough && answer == Answer::NoRoom, "{at}, {answer:?}");
    assert_eq!(tables.used, pages);
}
