//! What is typed at a desk stays there: a canary is looked for everywhere afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use muster_engine::bundled::NAME;
use muster_tests::{Agent, Controller, Identity, Interceptor, Metrics, PATIENCE, Reply, Request, user, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// In every prompt; no word of any program or model.
const CANARY: &str = "Xylocopa-7391-canary";

/// Each file below `folder`, and where in it one of `words` is.
fn search(folder: &Path, words: &[&str], found: &mut Vec<(PathBuf, String)>, files: &mut usize) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            search(&path, words, found, files);
        } else if let Ok(content) = fs::read(&path) {
            *files += 1;
            found.extend(hits(&content, words).into_iter().map(|word| (path.clone(), word)));
        }
    }
}

/// The words that are in `content`, as they are or in UTF-16.
fn hits(content: &[u8], words: &[&str]) -> Vec<String> {
    let contains = |needle: &[u8]| memchr::memmem::find(content, needle).is_some();
    let wide = |word: &str| word.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    words
        .iter()
        .filter(|word| contains(word.as_bytes()) || contains(&wide(word)))
        .map(|word| (*word).to_owned())
        .collect()
}

#[test]
fn a_prompt_and_its_answer_are_found_nowhere() {
    let mut controller = Controller::start_logging(Some("trace"), &["--metrics-listen", "127.0.0.1:0"]);
    let figures = controller.metrics();
    let model = controller.import_bundled("");
    controller.want(NAME, 1024);
    let mut agent = Agent::new().variable("MUSTER_LOG", "trace,muster_agent=trace");
    agent.enrol(&controller.address, &controller.token(&[])).ok();
    let interceptor = Interceptor::between(&controller, Identity::of_agent(&agent.state()));
    agent = agent.variable("HTTPS_PROXY", &format!("http://{}", interceptor.address));
    agent.restart();
    let id = agent.id();
    controller.wait_success(id, NAME);
    let endpoint = agent.endpoint().clone();

    // Answered, whole and streamed, over HTTP and in the terminal.
    let (question, answer) = crate::QUESTION;
    let asked = user(&format!("{question} {CANARY}"));
    endpoint.ask(NAME, &asked);
    endpoint.ask_streamed(NAME, &asked);
    assert_eq!(endpoint.ask(NAME, &user(question)).content, answer);
    agent.say(&["chat", "--temperature", "0", &format!("{question} {CANARY}")]).ok();
    agent.say(&["chat", "--temperature", "0", question]).ok();
    // Refused: too long, malformed in each place that is read, for a model that is not there.
    let refuse = |reply: Reply| assert!((400..500).contains(&reply.status), "{}", reply.status);
    refuse(endpoint.chat(&json!({"model": NAME, "messages": user(&format!("{CANARY} ").repeat(2000))})));
    refuse(endpoint.chat(&json!({"model": NAME, "messages": CANARY})));
    refuse(endpoint.chat(&json!({"model": NAME, "messages": [{"role": CANARY}]})));
    refuse(endpoint.chat(&json!({"model": CANARY, "messages": user("Hello")})));
    refuse(endpoint.send(&Request::post("/v1/chat/completions", &json!(CANARY))));
    // Cut off by a client that hangs up, and by a worker that dies while it computes.
    let mut body = muster_tests::Endpoint::body(NAME, &asked);
    body["stream"] = json!(true);
    drop(endpoint.chat(&body).events().next());
    let mut events = endpoint.chat(&body).events();
    let _ = events.next();
    for worker in agent.workers() {
        let pid = Pid::from_raw(i32::try_from(worker).expect("a process id")).expect("not zero");
        let _ = kill_process(pid, Signal::KILL);
    }
    drop(events);
    wait_for("an answer of a new worker", PATIENCE, || endpoint.try_ask(NAME, &asked));
    controller.wait_success(id, NAME);
    agent.status();
    let pages = [Metrics::scrape(endpoint.address()), Metrics::scrape(&figures)];
    agent.terminate();
    controller.terminate();

    // Each search also looks for something that has to be there: one that finds nothing proves nothing.
    let (base, hex, machine) = (endpoint.base.as_str(), model.artifacts[0].digest.hex(), id.to_string());
    let canaries = [CANARY, answer, question];
    let (mut found, mut files) = (Vec::new(), 0);
    for (folder, known) in [(agent.state(), machine.as_str()), (controller.data(), base)] {
        let (mut here, before) = (Vec::new(), files);
        search(&folder, &[&canaries[..], &[known]].concat(), &mut here, &mut files);
        assert!(files > before + 3, "only {} files in {}", files - before, folder.display());
        let (control, canary): (Vec<_>, Vec<_>) = here.into_iter().partition(|(_, word)| word == known);
        assert!(!control.is_empty(), "the search does not find {known} in {}", folder.display());
        found.extend(canary);
    }
    for (log, known) in [(agent.log(), hex.as_str()), (controller.log(), machine.as_str())] {
        let content = fs::read(&log).expect("a log");
        assert_eq!(hits(&content, &[known]), [known], "{} says nothing", log.display());
        found.extend(hits(&content, &canaries).into_iter().map(|word| (log.clone(), word)));
    }
    assert_eq!(found, []);
    for (page, known) in pages.iter().zip([NAME, "muster_controller_machines_online"]) {
        assert_eq!(hits(page.text.as_bytes(), &[known]), [known], "{}", page.text);
        assert_eq!(hits(page.text.as_bytes(), &canaries), Vec::<String>::new());
    }

    // What the controller received, above TLS: the desk tells where it answers, and nothing of what it answers.
    let received = interceptor.received();
    assert_eq!(hits(&received, &[base]), [base], "not in {} received bytes", received.len());
    assert_eq!(hits(&received, &canaries), Vec::<String>::new());
}
