#![cfg(test)]

use super::script;

#[test]
fn what_an_interpreter_runs() {
    for (executable, line, name) in [
        ("python3.11", "python3 /srv/shop/app.py --port 1", "app"),
        ("python3", "python3 -u -W ignore app.py", "app"),
        ("python3", "python3 -m http.server 80", "http.server"),
        ("python3", "python3 -um http.server", "http.server"),
        ("python3", "python3 -mhttp.server", "http.server"),
        ("python3", "python3 -c print(1) app.py", ""),
        ("python3", "python3 -bc print(1)", ""),
        ("python3", "python3 -", ""),
        ("python3", "python3", ""),
        ("python3", "/usr/bin/python3 /usr/bin/gunicorn -w 4 -b 0.0.0.0:80 shop.wsgi:app", "shop"),
        ("python3", "python3 -m uvicorn shop.main:app --host 0.0.0.0", "shop"),
        ("python3", "python3 /usr/bin/uvicorn orders:app", "orders"),
        ("python3", "python3 /usr/bin/gunicorn -c conf.py", "gunicorn"),
        ("python3", "python3 /srv/shop/__main__.py", "shop"),
        ("python3", "python3 /usr/bin/celery -A proj worker", "celery"),
        ("node", "node server.js", "server"),
        ("node", "node --require ./otel.js --inspect /srv/cart/index.js", "cart"),
        ("node", "node dist/index.js", "index"),
        ("node", "node -e setInterval(()=>{},1)", ""),
        ("nodejs", "nodejs --max-old-space-size=4096 main.mjs", "main"),
        ("deno", "deno run --allow-net api.ts", "api"),
        ("bun", "bun api.ts", "api"),
        ("java", "java -Xmx1g -jar /opt/shop-1.2.3-SNAPSHOT.jar --server.port=1", "shop"),
        ("java", "java -jar order-service.jar", "order-service"),
        ("java", "java -cp a.jar:b.jar -Dx=y @args com.acme.Shop serve", "com.acme.Shop"),
        ("java", "java --add-opens java.base/java.lang=ALL-UNNAMED -m shop/com.acme.Main", "shop"),
        ("java", "java -version", ""),
        ("ruby3.1", "ruby -Ilib -rbundler /app/bin/rails server", "rails"),
        ("ruby", "ruby /usr/bin/bundle exec puma -p 1", "puma"),
        ("perl", "perl -w -I lib daemon.pl", "daemon"),
        ("perl", "perl -we print", ""),
        ("php", "php -d memory_limit=1G artisan serve", "artisan"),
        ("php8.2", "php8.2 -f worker.php", "worker"),
        ("php", "php -S 0.0.0.0:80", ""),
        ("bash", "bash -eu -o pipefail ./loop.sh x", "loop"),
        ("bash", "bash /dev/fd/63 x", ""),
        ("dash", "sh -c curl http://x", ""),
        ("dash", "sh -ec exit", ""),
        ("dash", "-sh", ""),
        ("dotnet", "dotnet exec --depsfile x.json Shop.Api.dll", "Shop.Api"),
        ("dotnet", "dotnet run", ""),
        ("nginx", "nginx x.py", ""),
        ("python3", "python3 /usr/bin/gunicorn --name a:b shop.wsgi:app", "shop"),
        ("python3", "python3 /usr/bin/gunicorn --name a:b --preload shop:app", "shop"),
        (
            "python3",
            "python3 /usr/bin/gunicorn -b app:8000 -k uvicorn.workers.UvicornWorker --preload shop:app",
            "shop",
        ),
        ("node", "node --env-file .env --title x server.js", "server"),
        ("node", "node --enable-source-maps --watch server.js prod", "server"),
        ("node", "node --dns-result-order ipv4first /srv/cart/index.js", "cart"),
        ("node", "node inspect server.js", "server"),
        ("node", "node --run start", ""),
        ("deno", "deno run -r main.ts prod", "main"),
        ("deno", "deno serve --port 8000 main.ts", "main"),
        ("deno", "deno task start", ""),
        ("bun", "bun -r ./otel.ts run api.ts", "api"),
        ("java", "java --enable-native-access ALL-UNNAMED -jar shop.jar", "shop"),
        ("java", "java -javaagent:/otel.jar -XX:+UseZGC -cp /app org.acme.Main", "org.acme.Main"),
        ("ruby3.1", "ruby -W:no-experimental app.rb", "app"),
        ("ruby", "ruby --enable yjit app.rb", "app"),
        ("perl", "perl -MData::Dumper -wT daemon.pl", "daemon"),
        ("perl", "perl -Mstrict -e print", ""),
        ("perl", "perl -i.bak -ne print", ""),
        ("php", "php -t public -S 0.0.0.0:80", ""),
        ("php8.2", "php8.2 --define memory_limit=1G artisan queue:work", "artisan"),
    ] {
        let args = line.replace(' ', "\0");
        assert_eq!(script(executable, args.as_bytes()).as_deref().unwrap_or(""), name, "{line}");
        let ended = args + "\0";
        assert_eq!(script(executable, ended.as_bytes()).as_deref().unwrap_or(""), name, "{line}");
    }
}

#[test]
fn what_servers_wrote_over_their_command_line_is_read() {
    for (executable, title, name) in [
        ("python3.11", "gunicorn: master [shop.wsgi:app]", "shop"),
        ("python3.11", "gunicorn: worker [shop.wsgi:app]", "shop"),
        ("python3.11", "gunicorn: worker [orders]", "orders"),
        ("ruby3.1", "puma 6.4.0 (tcp://0.0.0.0:80) [shop]", "shop"),
        ("ruby3.1", "puma: cluster worker 0: 7 [shop]", "shop"),
        ("python3.11", "gunicorn: worker", ""),
        ("python3.11", "gunicorn: worker []", ""),
        ("python3.11", "something [else]", ""),
        ("python3.11", "gunicornish: worker [x]", ""),
        ("nginx", "nginx: worker process [x]", ""),
    ] {
        for filled in [title.to_owned(), format!("{title}\0"), format!("{title}\0\0\0\0")] {
            assert_eq!(script(executable, filled.as_bytes()).as_deref().unwrap_or(""), name, "{title}");
        }
    }
    // Arguments that are still there count for more.
    assert_eq!(script("python3", b"gunicorn: worker [x]\0shop.py\0").as_deref(), Some("shop"));
}

#[test]
fn hostile_command_lines_name_nothing() {
    assert_eq!(script("python3", b"python3\0\xff\xfe.py\0"), None);
    assert_eq!(script("python3", b""), None);
    assert_eq!(script("python3", b"\0\0\0"), None);
    assert_eq!(script("python3", b"python3\0-m"), None);
    assert_eq!(script("python3", b"python3\0a\nb.py\0").as_deref(), Some("a\u{fffd}b"));
    assert_eq!(script("3.1", b"x\0y"), None);
}
