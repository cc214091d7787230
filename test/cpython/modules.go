package main

// excluded are the modules that issue 4 leaves out, and why.
var excluded = map[string]string{
	"test_fork1":                      "fork only",
	"test_wait3":                      "fork only",
	"test_wait4":                      "fork only",
	"test_pty":                        "fork only",
	"test_multiprocessing_fork":       "fork only",
	"test_multiprocessing_forkserver": "fork only",
	"test_idle":                       "GUI",
	"test_tcl":                        "GUI",
	"test_tix":                        "GUI",
	"test_tk":                         "GUI",
	"test_ttk_guionly":                "GUI",
	"test_ttk_textonly":               "GUI",
	"test_turtle":                     "GUI",
}

// named are the modules that docs/conformance.md shows one by one.
var named = []string{
	"test_asyncio", "test_socket", "test_ssl", "test_threading", "test_selectors", "test_epoll", "test_signal", "test_os", "test_io",
	"test_mmap", "test_subprocess", "test_tempfile", "test_sqlite3", "test_http_cookiejar", "test_http_cookies", "test_httplib", "test_httpservers",
}

// quick are the modules of the short form, which CI runs.
var quick = []string{
	"test_os", "test_posix", "test_fileio", "test_file", "test_tempfile", "test_shutil", "test_pathlib", "test_stat", "test_mmap",
	"test_fcntl", "test_select", "test_poll", "test_epoll", "test_selectors", "test_time", "test_resource", "test_thread",
	"test_threading_local", "test_queue", "test_sqlite3", "test_http_cookiejar", "test_http_cookies", "test_httpservers", "test_random",
	"test_uuid", "test_json", "test_struct", "test_memoryview", "test_ipaddress", "test_locale", "test_zipfile",
	"test.test_asyncio.test_events", "test.test_asyncio.test_streams", "test.test_asyncio.test_tasks",
}
