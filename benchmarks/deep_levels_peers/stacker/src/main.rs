//! A recursive-descent parser of nested brackets, for deep_levels.py. stacker runs it on further stacks.
//!
//! Prints the seconds of each parse, the peak of the resident set, and the resident set a second later (MiB).
use std::time::{Duration, Instant};

struct Node {
    children: Vec<Node>,
}

const RED_ZONE: usize = 32 << 10;
const SEGMENT: usize = 1 << 20;

fn parse(text: &[u8], mut at: usize) -> (Node, usize) {
    stacker::maybe_grow(RED_ZONE, SEGMENT, || {
        let mut made = Node { children: Vec::new() };
        at += 1;
        while text[at] == b'[' {
            let (child, next) = parse(text, at);
            made.children.push(child);
            at = next;
        }
        (made, at + 1)
    })
}

/// The compiler's own way of freeing a tree recurses without asking stacker.
fn free(root: Node) {
    let mut waiting = vec![root];
    while let Some(mut node) = waiting.pop() {
        waiting.append(&mut node.children);
    }
}

fn mebibytes(field: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}

fn main() {
    let levels: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let text = [vec![b'['; levels], vec![b']'; levels]].concat();
    let mut seconds = [0.0; 2];
    for each in &mut seconds {
        let begun = Instant::now();
        let (root, _) = parse(&text, 0);
        *each = begun.elapsed().as_secs_f64();
        assert_eq!(root.children.len(), 1);
        free(root);
    }
    std::thread::sleep(Duration::from_secs(1));
    println!(
        "{{\"seconds\": [{}, {}], \"peak_mib\": {}, \"after_mib\": {}}}",
        seconds[0],
        seconds[1],
        mebibytes("VmHWM"),
        mebibytes("VmRSS")
    );
}
