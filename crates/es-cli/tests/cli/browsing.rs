//! `es ui` in a browser: the live tail, the keyboard, the accessibility tree, and the policies of the page.

use std::{fs, path::Path};

use es_sqlite::rusqlite::Connection;
use serde_json::{Value, json};

use crate::{chromium::Chromium, support::Sandbox, ui::Page};

const ACCOUNT: &str = "69d45f5d-823c-453d-b341-1550464bc315";

/// Roles of controls, each of which must have a name.
const CONTROLS: [&str; 13] = [
    "button",
    "checkbox",
    "combobox",
    "Date",
    "DateTime",
    "DisclosureTriangle",
    "InputTime",
    "link",
    "radio",
    "searchbox",
    "spinbutton",
    "textbox",
    "img",
];

/// Returns the texts with too little contrast to their background, by the rule of WCAG 2.2 AA.
const LOW_CONTRAST: &str = "(() => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const color = (text) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = text;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const luminance = (rgb) => {
        const [r, g, b] = rgb.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const background = (element) => {
        for (; element; element = element.parentElement) {
            const found = color(getComputedStyle(element).backgroundColor);
            if (found[3] === 255) return found;
        }
        return [255, 255, 255, 255];
    };
    const found = [];
    for (const element of document.body.querySelectorAll('*')) {
        const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!hasText || !element.checkVisibility() || element.closest('.skip, template, noscript, script')) continue;
        const style = getComputedStyle(element);
        const text = color(element.closest('svg') ? style.fill : style.color);
        const [a, b] = [luminance(text.slice(0, 3)), luminance(background(element).slice(0, 3))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) found.push(`${element.tagName}.${element.className.baseVal ?? element.className} ${ratio}`);
    }
    return found;
})()";

fn bank() -> Sandbox {
    Sandbox::with_python_database("sqlite-9.5-plain")
}

/// Opens the page, as a user does with the printed URL, and follows it to the log.
fn open(browser: &mut Chromium, page: &Page) {
    browser.loads_all(2, |browser| browser.go(&page.url));
    assert_eq!(browser.evaluate("location.pathname.endsWith('/log')"), json!(true));
    assert_eq!(browser.evaluate("location.href.includes('token')"), json!(false));
    assert_eq!(browser.evaluate("document.cookie"), json!(""), "no script reads the cookie");
}

/// Verifies that the browser has nothing to object, and that every request was one to the page.
fn assert_silent(browser: &Chromium, page: &Page) {
    assert_eq!(browser.complaints(), Vec::<&Value>::new());
    let (own, _) = page.url.split_once("?").unwrap();
    let foreign: Vec<_> = browser
        .requests()
        .filter(|url| !url.starts_with(own) && *url != "about:blank" && !url.starts_with("data:"))
        .collect();
    assert_eq!(foreign, Vec::<&str>::new());
    assert!(browser.requests().count() > 3);
}

#[test]
fn the_live_tail_shows_commits_of_other_processes() {
    let Some(mut browser) = Chromium::start() else { return };
    let sandbox = bank();
    let page = Page::on_bank(&sandbox);
    open(&mut browser, &page);
    let insert = |version: i64, topic: &str, state: &str| {
        sandbox.execute(&format!(
            "INSERT INTO stored_events SELECT originator_id, {version}, '{topic}', CAST('{state}' AS BLOB) \
             FROM stored_events WHERE rowid = 1"
        ));
    };
    let row = "document.querySelector('#events tbody tr')";
    browser.tab_to("focused.textContent === 'Follow live'");
    browser.press("Enter");
    insert(
        6,
        "bank:<b>Live</b>",
        r#"{"timestamp":"2026-11-24T10:00:00Z","note":"<img src=x onerror=alert(1)>"}"#,
    );
    browser.wait_until(&format!("{row}.querySelector('.id').textContent === '44'"));
    let text = |browser: &mut Chromium, selector: &str| {
        browser
            .evaluate(&format!("{row}.querySelector('{selector}').textContent"))
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(text(&mut browser, ".topic"), "bank:<b>Live</b>");
    assert_eq!(text(&mut browser, ".time"), "2026-11-24 10:00:00.000");
    assert_eq!(text(&mut browser, ".aggregate"), format!("{ACCOUNT} v6"));
    assert!(text(&mut browser, "pre").contains("<img src=x onerror=alert(1)>"));
    browser.wait_until("document.querySelector('[role=status]').textContent.includes('1 new event')");
    // Paused, then followed from where it was.
    browser.press("Enter");
    browser.wait_until("document.querySelector('#live button').getAttribute('aria-pressed') === 'false'");
    insert(7, "bank:Paused", "{");
    browser.press("Space");
    browser.wait_until(&format!("{row}.querySelector('.id').textContent === '45'"));
    assert!(text(&mut browser, ".unreadable").contains("the state is not JSON"));
    assert_eq!(browser.evaluate("document.querySelectorAll('#events tbody tr').length"), json!(45));
    assert_silent(&browser, &page);
    // The page says that the tool has ended.
    drop(page);
    browser.wait_until(
        "document.querySelector('[role=status]').textContent.includes('connection is interrupted')",
    );
}

#[test]
fn the_filter_and_the_comparison_are_used_by_keyboard() {
    let Some(mut browser) = Chromium::start() else { return };
    let sandbox = bank();
    let page = Page::on_bank(&sandbox);
    open(&mut browser, &page);
    browser.press("Tab");
    assert_eq!(browser.evaluate("document.activeElement.textContent"), json!("Skip to the content"));
    let outline = "getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.evaluate(outline), json!("solid"), "the focus is visible");
    browser.press("Enter");
    browser.tab_to("focused.id === 'topic'");
    browser.insert("bank:Account.Verified");
    browser.tab_to("focused.id === 'order'");
    browser.press("ArrowDown");
    browser.tab_to("focused.textContent === 'Show'");
    browser.loads(|browser| browser.press("Enter"));
    let ids = "[...document.querySelectorAll('#events .id')].map((cell) => Number(cell.textContent))";
    let found = browser.evaluate(ids);
    let found: Vec<i64> = serde_json::from_value(found).unwrap();
    assert!(found.first() == Some(&5) && found.is_sorted() && found.len() < 43, "{found:?}");

    browser.tab_to(&format!("focused.textContent === '{ACCOUNT}'"));
    browser.loads(|browser| browser.press("Enter"));
    assert_eq!(
        browser.evaluate("document.querySelector('h2').textContent"),
        json!("Version 4 and version 5")
    );
    browser.tab_to("focused.name === 'left'");
    browser.press("ArrowDown");
    browser.press("ArrowDown");
    browser.tab_to("focused.name === 'right'");
    browser.press("ArrowDown");
    browser.loads(|browser| browser.press("Enter"));
    assert_eq!(
        browser.evaluate("document.querySelector('h2').textContent"),
        json!("Version 2 and version 4")
    );
    let rows = "[...document.querySelectorAll('.comparison tbody tr')].map((row) => row.innerText)";
    let rows: Vec<String> = serde_json::from_value(browser.evaluate(rows)).unwrap();
    let row = |name: &str| rows.iter().find(|row| row.starts_with(name)).expect(name);
    assert!(row("amount").contains("\"3892223.7\"") && row("amount").contains("\"2441394.02\""), "{rows:?}");
    assert!(row("amount").contains("changed") && row("tags.2.0").contains('='), "{rows:?}");
    assert_silent(&browser, &page);
}

#[test]
fn pages_are_accessible() {
    let Some(mut browser) = Chromium::start() else { return };
    let sandbox = bank();
    let page = Page::on_bank(&sandbox);
    open(&mut browser, &page);
    let (directory, _) = page.url.split_once('?').unwrap();
    let paths = ["log", "activity", "topics", "trackers", &format!("aggregate?id={ACCOUNT}&left=1&right=2")];
    for path in paths {
        for (scheme, motion) in [("light", "no-preference"), ("dark", "reduce")] {
            browser.set_media(scheme, motion);
            browser.set_size(1280, 800);
            browser.navigate(&format!("{directory}{path}"));
            assert_eq!(browser.evaluate(LOW_CONTRAST), json!([]), "{path}, {scheme}");
            // The smallest width of WCAG 2.2, 1.4.10: tables have scroll bars of their own.
            browser.set_size(320, 640);
            let overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(browser.evaluate(overflow), json!(0), "{path}");
        }
        let tree = browser.call("Accessibility.getFullAXTree", json!({}));
        let nodes: Vec<_> =
            tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] != json!(true)).collect();
        let of_role = |role: &str| {
            nodes
                .iter()
                .filter(|node| node["role"]["value"] == role)
                .map(|node| node["name"]["value"].as_str().unwrap_or(""))
                .collect::<Vec<_>>()
        };
        for role in CONTROLS.into_iter().chain(["form", "navigation", "region", "table"]) {
            assert!(of_role(role).iter().all(|name| !name.is_empty()), "{path}: a {role} without a name");
        }
        assert!(!of_role("link").is_empty(), "{path}");
        for role in ["main", "banner"] {
            assert_eq!(of_role(role).len(), 1, "{path}: {role}");
        }
        assert!(of_role("navigation").contains(&"Pages"), "{path}");
        let headings = "[...document.querySelectorAll('h1, h2, h3')].map((heading) => heading.tagName)";
        let headings: Vec<String> = serde_json::from_value(browser.evaluate(headings)).unwrap();
        assert_eq!(headings.iter().filter(|level| *level == "H1").count(), 1, "{path}: {headings:?}");
        assert_eq!(headings[0], "H1", "{path}");
        let cells =
            "document.querySelectorAll('th:not([scope]), table:not(:has(caption)), html:not([lang])').length";
        assert_eq!(browser.evaluate(cells), json!(0), "{path}");
    }
    assert_silent(&browser, &page);
}

/// A database of a shop with some days of orders.
fn shop() -> Sandbox {
    let sandbox = bank();
    fs::rename(sandbox.path("bank.db"), sandbox.path("shop.db")).unwrap();
    Connection::open(sandbox.path("shop.db")).unwrap().execute_batch(include_str!("shop.sql")).unwrap();
    sandbox
}

/// Renews the pictures of the book: `cargo test -p es-cli --test cli pictures -- --ignored`.
#[test]
#[ignore = "writes files of the repository"]
fn pictures() {
    let mut browser = Chromium::start().unwrap();
    let sandbox = shop();
    let page = Page::start(&sandbox, &["--database", "sqlite:shop.db"]);
    open(&mut browser, &page);
    let (directory, _) = page.url.split_once('?').unwrap();
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book/pictures");
    fs::create_dir_all(&target).unwrap();
    for (name, path, scheme, (width, height)) in [
        ("ui-log", "log".to_owned(), "light", (1120, 620)),
        (
            "ui-aggregate",
            "aggregate?id=5b1a0000-0000-4000-8000-00000000005f&left=1&right=2".to_owned(),
            "light",
            (1200, 640),
        ),
        ("ui-activity", "activity".to_owned(), "dark", (1200, 700)),
    ] {
        browser.set_media(scheme, "reduce");
        browser.set_size(width, height);
        browser.navigate(&format!("{directory}{path}"));
        fs::write(target.join(format!("{name}.png")), browser.picture()).unwrap();
    }
}
