//! The rules, one case each.

/// Each: what is added to the minimal configuration, and what is said of it.
pub(super) const RULES: &[(&str, &str)] = &[
    ("[server]\nlisten = '0.0.0.0:8080'", "server.public_url:1"),
    (
        "[server]\nadmin_listen = '[::]:9090'",
        "server.admin_token:1",
    ),
    (
        "[server]\nadmin_listen = '127.0.0.1:8080'",
        "server.admin_listen:2",
    ),
    ("[server]\nadmin_token = 'short'", "server.admin_token:2"),
    (
        "[server]\nadmin_token = 'ä234567890123456'",
        "server.admin_token:2",
    ),
    ("[server]\nadmin_token = 7", "server.admin_token:2"),
    (
        "[server]\npublic_url = 'https://a.example/tiles'",
        "server.public_url:2",
    ),
    ("[server]\npublic_url = 'a.example'", "server.public_url:2"),
    (
        "[server]\ntrusted_proxies = ['10.0.0.0/8', '10.0.0.0/33']",
        "server.trusted_proxies[1]:2",
    ),
    (
        "[server]\ntrusted_proxies = ['0.0.0.0/0']",
        "server.trusted_proxies[0]:2",
    ),
    (
        "[server]\ntrusted_proxies = '10.0.0.0/8'",
        "server.trusted_proxies:2",
    ),
    (
        "[server]\ncors_origins = [\n'https://a.example',\n'*']",
        "server.cors_origins[1]:4",
    ),
    (
        "[server]\ncors_origins = ['https://A.example']",
        "server.cors_origins[0]:2",
    ),
    (
        "[server]\ndefault_tileset = 'W'",
        "server.default_tileset:2",
    ),
    ("[server]\nshutdown_grace = '2h'", "server.shutdown_grace:2"),
    (
        "[server]\ntls = { cert = 'Cargo.toml' }",
        "server.tls.cert:2 server.tls.key:2",
    ),
    (
        "[server]\ntls = { cert = 'none.pem', key = 'none.pem' }",
        "server.tls.cert:2 server.tls.key:2",
    ),
    ("[server]\ntls = true", "server.tls:2"),
    ("[origin]\ndeadline = '0s'", "origin.deadline:2"),
    ("[origin]\nconcurrency = 0", "origin.concurrency:2"),
    (
        "[origin]\nconcurrency = 9999999999999999999999",
        "origin.concurrency:2",
    ),
    (
        "[origin]\nspeculative = 8\nguess = ['rings']",
        "origin.guess[0]:3",
    ),
    ("[origin]\nguess = []", "origin.guess:2"),
    ("[cache]\nmemory = '5KiB'", "cache.memory:2"),
    ("[cache]\nmemory = -1", "cache.memory:2"),
    ("[cache]\nmemory = '9999999EiB'", "cache.memory:2"),
    ("[cache]\ndisk = '1GiB'", "cache.disk_path:1"),
    ("[cache]\ndisk = '1MiB'\ndisk_path = 'd'", "cache.disk:2"),
    ("[cache]\nfresh = '0s'", "cache.fresh:2"),
    (
        "[cache]\nstale_while_revalidate = '2years'",
        "cache.stale_while_revalidate:2",
    ),
    ("[cache]\nmissing = 'never'", "cache.missing:2"),
    ("[session]\ncookie = '__Host-tilekeep'", "session.cookie:2"),
    ("[session]\ncookie = 'a b'", "session.cookie:2"),
    (
        "[session]\ndomain = 'https://example.com'",
        "session.domain:2",
    ),
    ("[session]\ndomain = '.example.com'", "session.domain:2"),
    ("[session]\nttl = '2d'\nmax_ttl = '1d'", "session.ttl:2"),
    ("[session]\nmax_ttl = '1h'", "session.max_ttl:2"),
    ("[session]\nkeys = [{ id = 'a' }]", "session.keys[0]:2"),
    (
        "[session]\nkeys = [{ secret = { env = 'KEY' } }]",
        "session.keys[0].id:2",
    ),
    (
        "[session]\nkeys = [{ id = 'a', secret = { env = 'SHORT' } }]",
        "session.keys[0].secret:2",
    ),
    (
        "[session]\nkeys = [{ id = 'a', secret = { env = 'UNSET' } }]",
        "session.keys[0].secret.env:2",
    ),
    (
        "[session]\nkeys = [{ id = 'a', secret = { file = 'none' } }]",
        "session.keys[0].secret.file:2",
    ),
    (
        "[session]\nkeys = [{ id = 'a', secret = { file = 'src' } }]",
        "session.keys[0].secret.file:2",
    ),
    (
        "[session]\nkeys = [{ id = 'a', secret = {} }]",
        "session.keys[0].secret:2",
    ),
    (
        "[session]\nkeys = [{ id = 'a', secret = { env = 'KEY', file = 'Cargo.toml' } }]",
        "session.keys[0].secret:2",
    ),
    (
        "[session]\nkeys = [{ id = 'a', secret = { evn = 'KEY' } }]",
        "session.keys[0].secret.evn:2",
    ),
    (
        "[session]\nkeys = [{ id = 'a', public_key = 'x' }]",
        "session.keys[0].public_key:2",
    ),
    (
        "[session]\nkeys = [{ id = 'a', private_key = '-----BEGIN PRIVATE KEY-----' }]",
        "session.keys[0]:2",
    ),
    (
        "[login]\nusers_file = 'none.toml'",
        "login.users_file:2 session.keys:0",
    ),
    (
        "[login]\nusers_file = 'Cargo.toml'\n[session]\nkeys = []",
        "session.keys:4",
    ),
    (
        "[login]\nusers_file = 'Cargo.toml'\n[session]\nkeys = [{ id = 'a', public_key = '-----BEGIN PUBLIC KEY-----' }]",
        "session.keys:4",
    ),
    (
        "[login]\nusers_file = 'Cargo.toml'\n[session]\nkeys = [{ id = 'a', secret = { env = 'KEY' } }]\n[server]\npublic_url = 'http://a.example'",
        "server.public_url:6",
    ),
    (
        "[session]\ndomain = 'b.example'\n[server]\npublic_url = 'https://a.example'",
        "session.domain:2",
    ),
    ("[aws]\nregion = 'Europe (Ireland)'", "aws.region:2"),
    (
        "[aws]\nendpoint_url = '127.0.0.1:9000'",
        "aws.endpoint_url:2",
    ),
    ("[aws]\nendpoint_url = 'http://u:p@h'", "aws.endpoint_url:2"),
    ("[aws]\npath_style = 'yes'", "aws.path_style:2"),
    (
        "[aws]\nassume_role = { external_id = 'abc' }",
        "aws.assume_role.arn:2",
    ),
    (
        "[aws]\nassume_role = { arn = 'tiles' }",
        "aws.assume_role.arn:2",
    ),
    (
        "[aws]\nassume_role = { arn = 'arn:aws:iam::123456789012:role/t', duration = '1m' }",
        "aws.assume_role.duration:2",
    ),
    (
        "[aws]\nassume_role = { arn = 'arn:aws:iam::123456789012:role/t', session_name = 'a b' }",
        "aws.assume_role.session_name:2",
    ),
    (
        "[aws]\nassume_role = { arn = 'arn:aws:iam::123456789012:role/t' }\nendpoint_url = 'http://h'",
        "aws.assume_role:2",
    ),
    (
        "assume_role = { arn = 'arn:aws:iam::123456789012:role/t' }\n[aws]\nendpoint_url = 'http://h'",
        "tilesets.w.assume_role:1",
    ),
    ("format = 'gif'", "tilesets.w.format:1"),
    ("minzoom = 5\nmaxzoom = 4", "tilesets.w.minzoom:1"),
    ("maxzoom = 31", "tilesets.w.maxzoom:1"),
    ("bounds = [0, 0, 1]", "tilesets.w.bounds:1"),
    ("bounds = [0, 0, 1, '1']", "tilesets.w.bounds[3]:1"),
    ("bounds = [0, 0, 0x1, 1]", "tilesets.w.bounds[2]:1"),
    ("bounds = [0, 2, 1, 1]", "tilesets.w.bounds:1"),
    ("version = 'a/b'", "tilesets.w.version:1"),
    ("missing = 404", "tilesets.w.missing:1"),
    (
        "browser = { max_age = '1h', stale = '1h' }",
        "tilesets.w.browser.stale:1",
    ),
    ("browser.max_age = 'x'", "tilesets.w.browser.max_age:1"),
    ("tilejson = { tiles = [] }", "tilesets.w.tilejson:1"),
    ("tilejson = { a = nan }", "tilesets.w.tilejson:1"),
    (
        "[tilesets.w2]\nkey = '{z}/{x}/{y}.png'\naccess = 'public'",
        "tilesets.w2.bucket:1",
    ),
    (
        "[tilesets.w2]\nbucket = 'b'\naccess = 'public'",
        "tilesets.w2.key:1",
    ),
    (
        "[tilesets.w2]\nbucket = 's3://b'\nkey = '{z}/{x}/{y}.png'",
        "tilesets.w2.bucket:2",
    ),
    (
        "[tilesets.w2]\nbucket = 'b'\nkey = '/{z}/{x}/{y}.png'",
        "tilesets.w2.key:3",
    ),
    (
        "[tilesets.w2]\nbucket = 'b'\nkey = '{z}/{x}/{y}'\naccess = 'public'",
        "tilesets.w2.format:1",
    ),
    (
        "[tilesets.w2]\nbucket = 'b'\nkey = '{z}/{x}/{y}.png'",
        "session.keys:0",
    ),
    (
        "[tilesets.session]\nbucket = 'b'\nkey = '{z}/{x}/{y}.png'",
        "tilesets.session:1",
    ),
    (
        "[tilesets.'a.b']\nbucket = 'b'\nkey = '{z}/{x}/{y}.png'",
        "tilesets.a.b:1",
    ),
    ("[cluster]\nredis = 'h:6379'", "cluster.redis:2"),
    (
        "[cluster]\nredis = 'rediss://h#insecure'",
        "cluster.redis:2",
    ),
    ("[cluster]\nredis = { env = 'SHORT' }", "cluster.redis:2"),
    ("[cluster]\nprefix = 'a:'", "cluster.redis:1"),
    (
        "[cluster]\nredis = 'redis://h'\nprefix = 'a b'",
        "cluster.prefix:3",
    ),
    (
        "[cluster]\nredis = 'rediss://h'\nca = 'no-such.pem'",
        "cluster.ca:3",
    ),
    (
        "[cluster]\nredis = 'redis://h'\nca = 'Cargo.toml'",
        "cluster.ca:3",
    ),
    (
        "[[quotas]]\nburst = 5",
        "quotas[0].burst:2 quotas[0].name:1",
    ),
    (
        "[[quotas]]\nrequests_per_second = 5\nbackground = true",
        "quotas[0].name:1",
    ),
    ("[[quotas]]\nname = 'Viewer'", "quotas[0].name:2"),
    (
        "[[quotas]]\nname = 'a'\n[[quotas]]\nname = 'a'",
        "quotas[1].name:4",
    ),
    (
        "[[quotas]]\nname = 'a'\nrequests_per_second = 0\nburst = 'much'\ndistinct_tiles_per_hour = 9_000_000_000",
        "quotas[0].burst:4 quotas[0].distinct_tiles_per_hour:5 quotas[0].requests_per_second:3",
    ),
    ("[[quotas]]\nname = 'a'\nburst = 7", "quotas[0].burst:3"),
    (
        "[[quotas]]\nname = 'a'\ntiles_per_hour = 7",
        "quotas[0].tiles_per_hour:3",
    ),
    ("[quotas]\nname = 'a'", "quotas:1"),
    (
        "[publish]\nadmin_urls = ['https://a:9090', 'http://a:9090/x']\nadmin_url = 1",
        "publish.admin_url:3 publish.admin_urls[0]:2 publish.admin_urls[1]:2",
    ),
    ("[events]\nsqs_queue_url = 'q'", "events.sqs_queue_url:2"),
    (
        "[events]\nsqs_endpoint_url = 'http://127.0.0.1:4566'",
        "events.sqs_queue_url:1",
    ),
    (
        "[events]\nsqs_queue_url = 'https://h/1/q'\nsqs_endpoint_url = 'h'",
        "events.sqs_endpoint_url:3",
    ),
    (
        "[tilesets.w2]\nbucket = 'b'\narchive = 'w.pmtiles'\naccess = 'public'",
        "tilesets.w2.format:1",
    ),
    (
        "[tilesets.w2]\nbucket = 'b'\nformat = 'mvt'\narchive = 'w.pmtiles'\nkey = '{quadkey}'\naccess = 'public'",
        "tilesets.w2.archive:4",
    ),
    (
        "[tilesets.w2]\nbucket = 'b'\nformat = 'mvt'\narchive = '{z}.pmtiles'",
        "tilesets.w2.archive:4",
    ),
    (
        "[tilesets.w2]\nbucket = 'b'\nformat = 'mvt'\narchive = 'w.mbtiles'",
        "tilesets.w2.archive:4",
    ),
    (
        "[tilesets.w2]\nbucket = 'b'\nformat = 'mvt'\nkey = 'w.pmtiles'",
        "tilesets.w2.key:4",
    ),
    (
        "[tilesets.w2]\nbucket = 'b'\nformat = 'mvt'\narchive = '{version}.pmtiles'",
        "tilesets.w2.archive:4",
    ),
    (
        "[tilesets.w2]\nbucket = 'b'\narchive = 'w.pmtiles'\ndelivery = 'redirect'\naccess = 'public'",
        "tilesets.w2.delivery:4 tilesets.w2.format:1",
    ),
];
