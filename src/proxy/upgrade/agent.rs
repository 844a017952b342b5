//! The family of a client's software, from its `User-Agent`.

/// The bytes of a `User-Agent` that are looked at: a peer chooses its length.
const MAX_LENGTH: usize = 512;

/// The product names of each family, in lower case. The first family with a product in the header wins: browsers name
/// those that they are compatible with, too.
const FAMILIES: [(&str, &[&str]); 12] = [
    ("other", &["msie", "trident"]),
    ("edge", &["edg", "edga", "edgios", "edge"]),
    ("firefox", &["firefox", "fxios"]),
    ("chrome", &["chrome", "headlesschrome", "chromium", "crios"]),
    ("node", &["node", "node.js", "nodejs", "node-fetch", "undici", "jsdom"]),
    ("safari", &["safari", "applewebkit"]),
    ("okhttp", &["okhttp"]),
    ("python", &["python", "python-requests", "python-httpx", "python-urllib", "aiohttp", "websockets"]),
    ("go", &["go-http-client", "go"]),
    ("java", &["java", "java-http-client", "jetty", "reactornetty"]),
    ("curl", &["curl", "libcurl"]),
    ("dotnet", &[".net", "dotnet", "websocket-sharp"]),
];

/// The family of the software with this `User-Agent`.
pub(crate) fn family(user_agent: &str) -> &'static str {
    let user_agent = &user_agent[..user_agent.floor_char_boundary(MAX_LENGTH)];
    let is_one_of = |product: &str, names: &[&str]| names.iter().any(|name| product.eq_ignore_ascii_case(name));
    let has_any = |names: &[&str]| products(user_agent).any(|product| is_one_of(product, names));
    FAMILIES.iter().find(|(_, names)| has_any(names)).map_or("other", |(family, _)| family)
}

/// The names of the products, and the words of the comments (RFC 9110, 10.1.5).
fn products(user_agent: &str) -> impl Iterator<Item = &str> {
    let words = user_agent.split([' ', '\t', '(', ')', ';', ',']);
    words.map(|word| word.split_once('/').map_or(word, |(name, _)| name)).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEBKIT: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)";

    #[test]
    fn browser_has_its_family() {
        for (products, expected) in [
            ("Chrome/131.0.0.0 Safari/537.36", "chrome"),
            ("HeadlessChrome/131.0.0.0 Safari/537.36", "chrome"),
            ("Chrome/131.0.0.0 Safari/537.36 OPR/116.0.0.0", "chrome"),
            ("SamsungBrowser/23.0 Chrome/115.0.0.0 Mobile Safari/537.36", "chrome"),
            ("CriOS/131.0.6778.73 Mobile/15E148 Safari/604.1", "chrome"),
            ("Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0", "edge"),
            ("Chrome/131.0.0.0 Mobile Safari/537.36 EdgA/131.0.0.0", "edge"),
            ("Version/18.0 EdgiOS/131.0.0.0 Mobile/15E148 Safari/604.1", "edge"),
            ("Chrome/64.0.3282.140 Safari/537.36 Edge/18.17763", "edge"),
            ("FxiOS/133.0 Mobile/15E148 Safari/605.1.15", "firefox"),
            ("Version/18.1 Safari/605.1.15", "safari"),
            ("Mobile/15E148", "safari"),
            ("jsdom/25.0.1", "node"),
        ] {
            assert_eq!(family(&format!("{WEBKIT} {products}")), expected, "{products}");
        }
        for (user_agent, expected) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0", "firefox"),
            ("Mozilla/5.0 (Windows NT 10.0; .NET CLR 3.5.30729; Trident/7.0; rv:11.0) like Gecko", "other"),
        ] {
            assert_eq!(family(user_agent), expected, "{user_agent}");
        }
    }

    #[test]
    fn library_has_its_family() {
        for (user_agent, expected) in [
            ("node", "node"),
            ("undici", "node"),
            ("node-fetch/1.0 (+https://github.com/bitinn/node-fetch)", "node"),
            ("Python/3.13 websockets/14.1", "python"),
            ("Python/3.13 aiohttp/3.11.9", "python"),
            ("python-requests/2.32.3", "python"),
            ("Go-http-client/1.1", "go"),
            ("Java-http-client/21.0.5", "java"),
            ("Apache-HttpClient/4.5.14 (Java/21.0.5)", "java"),
            ("Microsoft SignalR/9.0 (9.0.0; Linux; Java; 21.0.5; Eclipse Adoptium)", "java"),
            ("okhttp/4.12.0", "okhttp"),
            ("chat-app/7.1 okhttp/5.0.0-alpha.14", "okhttp"),
            ("Microsoft SignalR/9.0 (9.0.0+abc; Linux; .NET; .NET 9.0.0)", "dotnet"),
            ("websocket-sharp/1.0/net45", "dotnet"),
            ("curl/8.11.0", "curl"),
            ("CURL/8.11.0", "curl"),
            ("javascript-client/1", "other"),
            ("Dart/3.5 (dart:io)", "other"),
            ("", "other"),
        ] {
            assert_eq!(family(user_agent), expected, "{user_agent}");
        }
    }

    #[test]
    fn length_of_the_header_is_bounded() {
        assert_eq!(family(&format!("{} curl/8", "x".repeat(MAX_LENGTH))), "other");
        assert_eq!(family(&"é".repeat(MAX_LENGTH)), "other");
    }
}
