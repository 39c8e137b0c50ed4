/*
 * A test double of wevtapi.dll: the part of the Windows Event Log API that
 * rea-agent calls, over plain files. It is never shipped. It exists since Wine's
 * own wevtapi.dll has no events, and since no real log fails on request.
 *
 * A channel is a file in the folder WEVT_DOUBLE, named like it with '!' for '/':
 *
 *   System.log      one rendered <Event> a line, in UTF-8, record ids rising; before
 *                   one that was forwarded its id in this log, and a blank
 *   System.orders   what goes wrong, a line each: CALL ERROR TIMES
 *
 * To append to the log is to write events, to take lines away from its front is
 * to wrap it, to make it smaller than it was is to clear it: what is open on it is
 * stale from then on (15011). The first line of the orders that fits a call is
 * carried out and counted down; TIMES -1 is for ever. CALL is one of
 *
 *   subscribe  EvtSubscribe fails with ERROR        next   EvtNext fails with ERROR
 *   render     EvtRender fails with ERROR           config the channel is disabled
 *   batch      EvtNext fails with 1734 for more than ERROR records, which it has
 *              passed by then, as Windows has
 *   most       the log may have ERROR bytes: one that is as large overwrites itself
 *
 * A subscription's query lets through what has its text in quotes as that of an
 * element: *[EventData[Data='a']] what has >a< in it.
 *
 * Twice a second, and when the process ends, handles.json in the folder says how many
 * handles of each kind were opened and closed, and how many calls had one that was
 * not open.
 * Facts about the calls: https://learn.microsoft.com/windows/win32/api/winevt/
 */
#define __USE_MINGW_ANSI_STDIO 1
#define WIN32_LEAN_AND_MEAN
#define _WIN32_WINNT 0x0A00
#include <windows.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __declspec(dllexport)

enum { /* winerror.h */
	STALE = 15011, NO_CHANNEL = 15007, NO_PUBLISHER = 15002, NO_MESSAGE = 15027, BAD_XML = 15008,
};
enum { /* winevt.h */
	SUBSCRIBE_OLDEST = 2, SUBSCRIBE_AFTER_BOOKMARK = 3, SUBSCRIBE_STRICT = 0x10000,
	QUERY_REVERSE = 0x200,
	RENDER_XML = 1, RENDER_BOOKMARK = 2,
	CONFIG_ENABLED = 0, CONFIG_MAX_SIZE = 8, LOG_SIZE = 3, LOG_RECORDS = 5, LOG_OLDEST = 6,
	MAX_SIZE = 20 << 20,
	TYPE_UINT64 = 10, TYPE_BOOLEAN = 13,
};

typedef HANDLE EVT_HANDLE;
typedef struct {
	union { BOOL boolean; UINT64 number; void *pointer; };
	DWORD count, type;
} EVT_VARIANT;

/* ---- handles ---- */

typedef enum { SUBSCRIPTION, QUERY, RECORD, BOOKMARK, CHANNELS, CONFIG, LOG, PUBLISHER, KINDS } kind;
static const char *kind_names[KINDS] = { "subscription", "query", "record", "bookmark", "channels", "config", "log", "publisher" };

typedef struct handle {
	DWORD magic;
	kind kind;
	WCHAR channel[256];
	/* of a subscription or query */
	HANDLE file, signal;
	LONGLONG position, size;
	FILETIME born;
	BOOL stale, reverse;
	char filter[256]; /* what a record must have in it */
	char *buffer;
	size_t have, at;
	struct handle *next;
	/* of a record */
	char *xml;
	/* of a record or a bookmark */
	UINT64 id;
	/* of a list of channels */
	HANDLE find;
	WIN32_FIND_DATAW found;
	BOOL more;
} handle;

enum { ALIVE = 0x52454131 };

static CRITICAL_SECTION lock;
static handle *subscriptions;
static LONG opened[KINDS], closed[KINDS], strangers;
static WCHAR folder[MAX_PATH];

static handle *new_handle(kind k, LPCWSTR channel)
{
	handle *h = calloc(1, sizeof *h);
	h->magic = ALIVE;
	h->kind = k;
	h->file = h->find = INVALID_HANDLE_VALUE;
	if (channel)
		lstrcpynW(h->channel, channel, 256);
	InterlockedIncrement(&opened[k]);
	return h;
}

/* the handle, if it is open and of one of two kinds; else the call fails with 6 */
static handle *known(EVT_HANDLE e, kind a, kind b)
{
	handle *h = e;
	if (h && h->magic == ALIVE && (h->kind == a || h->kind == b))
		return h;
	InterlockedIncrement(&strangers);
	SetLastError(ERROR_INVALID_HANDLE);
	return NULL;
}

static void free_handle(handle *h)
{
	EnterCriticalSection(&lock);
	for (handle **p = &subscriptions; *p; p = &(*p)->next)
		if (*p == h) {
			*p = h->next;
			break;
		}
	LeaveCriticalSection(&lock);
	if (h->file != INVALID_HANDLE_VALUE)
		CloseHandle(h->file);
	if (h->find != INVALID_HANDLE_VALUE)
		FindClose(h->find);
	InterlockedIncrement(&closed[h->kind]);
	h->magic = 0;
	free(h->buffer);
	free(h->xml);
	free(h);
}

static BOOL fail(DWORD error)
{
	SetLastError(error);
	return FALSE;
}

/* ---- files ---- */

static void path_of(LPCWSTR channel, LPCWSTR ending, WCHAR *path)
{
	_snwprintf(path, MAX_PATH, L"%ls\\%ls%ls", folder, channel, ending);
	for (WCHAR *c = path + wcslen(folder) + 1; *c; c++)
		if (*c == L'/')
			*c = L'!';
}

static HANDLE open_file(LPCWSTR channel, LPCWSTR ending)
{
	WCHAR path[MAX_PATH];
	path_of(channel, ending, path);
	return CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING, 0, NULL);
}

static LONGLONG size_of(LPCWSTR channel)
{
	WCHAR path[MAX_PATH];
	WIN32_FILE_ATTRIBUTE_DATA a;
	path_of(channel, L".log", path);
	if (!GetFileAttributesExW(path, GetFileExInfoStandard, &a))
		return -1;
	return (LONGLONG)a.nFileSizeHigh << 32 | a.nFileSizeLow;
}

/* whether there are orders; it is looked each 10 ms, since each record asks */
static BOOL any_orders(void)
{
	static volatile LONG some = -1;
	static volatile LONG looked;
	LONG now = GetTickCount();
	if (some < 0 || now - looked >= 10) {
		WCHAR pattern[MAX_PATH];
		WIN32_FIND_DATAW found;
		_snwprintf(pattern, MAX_PATH, L"%ls\\*.orders", folder);
		HANDLE find = FindFirstFileW(pattern, &found);
		if (find != INVALID_HANDLE_VALUE)
			FindClose(find);
		looked = now;
		some = find != INVALID_HANDLE_VALUE;
	}
	return some;
}

/* what the orders say of a call: its error, or 0 where they say nothing */
static DWORD ordered(LPCWSTR channel, const char *call)
{
	if (!any_orders())
		return 0;
	WCHAR path[MAX_PATH];
	char text[4096], rest[4096] = "", name[32];
	DWORD error = 0;
	path_of(channel, L".orders", path);
	FILE *f = _wfopen(path, L"r");
	if (!f)
		return 0;
	while (fgets(text, sizeof text, f)) {
		unsigned long e;
		long times;
		if (sscanf(text, "%31s %lu %ld", name, &e, &times) == 3 && !error && times && !strcmp(name, call)) {
			error = e;
			if (times > 0)
				snprintf(text, sizeof text, "%s %lu %ld\n", name, e, times - 1);
		}
		strncat(rest, text, sizeof rest - strlen(rest) - 1);
	}
	fclose(f);
	if (error && (f = _wfopen(path, L"w"))) {
		fputs(rest, f);
		fclose(f);
	}
	return error;
}

/* the next whole line of the log, allocated, or NULL where there is none yet */
static char *next_line(handle *h)
{
	for (;;) {
		char *start = h->buffer + h->at;
		char *end = h->have > h->at ? memchr(start, '\n', h->have - h->at) : NULL;
		if (end) {
			size_t n = end - start;
			char *line = malloc(n + 1);
			memcpy(line, start, n);
			line[n && line[n - 1] == '\r' ? n - 1 : n] = 0;
			h->at += n + 1;
			h->position += n + 1;
			return line;
		}
		memmove(h->buffer, start, h->have -= h->at);
		h->at = 0;
		h->buffer = realloc(h->buffer, h->have + (256 << 10));
		DWORD got = 0;
		if (!ReadFile(h->file, h->buffer + h->have, 256 << 10, &got, NULL) || !got)
			return NULL;
		h->have += got;
	}
}

/* the id of a line's record in its log */
static UINT64 record_id(const char *line)
{
	if (*line >= '0' && *line <= '9')
		return _strtoui64(line, NULL, 10);
	const char *p = strstr(line, "<EventRecordID>");
	return p ? _strtoui64(p + 15, NULL, 10) : 0;
}

static void back_to(handle *h, LONGLONG position)
{
	LARGE_INTEGER to = { .QuadPart = position };
	SetFilePointerEx(h->file, to, NULL, FILE_BEGIN);
	h->position = position;
	h->have = h->at = 0;
}

/* ---- signals: every 10 ms is looked whether a log has changed ---- */

static BOOL is_stale(handle *h)
{
	LONGLONG size = size_of(h->channel);
	BY_HANDLE_FILE_INFORMATION a, b;
	if (size < h->size)
		return TRUE;
	h->size = size;
	HANDLE now = open_file(h->channel, L".log"); /* another file of that name? */
	if (now == INVALID_HANDLE_VALUE)
		return TRUE;
	BOOL other = GetFileInformationByHandle(now, &a) && GetFileInformationByHandle(h->file, &b) &&
		(a.nFileIndexLow != b.nFileIndexLow || a.nFileIndexHigh != b.nFileIndexHigh);
	CloseHandle(now);
	return other;
}

static void tell_handles(void);

static DWORD WINAPI watch(LPVOID unused)
{
	(void)unused;
	for (unsigned tick = 0;; Sleep(10)) {
		if (++tick % 50 == 0)
			tell_handles();
		EnterCriticalSection(&lock);
		for (handle *h = subscriptions; h; h = h->next) {
			LONGLONG before = h->size;
			if (!h->stale && is_stale(h))
				h->stale = TRUE;
			if (h->stale || h->size != before)
				SetEvent(h->signal);
		}
		LeaveCriticalSection(&lock);
	}
	return 0;
}

/* ---- subscriptions and queries ---- */

static handle *open_log(kind k, LPCWSTR channel)
{
	HANDLE file = open_file(channel, L".log");
	if (file == INVALID_HANDLE_VALUE) {
		SetLastError(NO_CHANNEL);
		return NULL;
	}
	handle *h = new_handle(k, channel);
	h->file = file;
	h->size = size_of(channel);
	return h;
}

/* puts h behind record id; FALSE if that record is not there */
static BOOL seek_behind(handle *h, UINT64 id)
{
	BOOL found = FALSE;
	LONGLONG start = h->position;
	char *line;
	while ((line = next_line(h))) {
		UINT64 n = record_id(line);
		free(line);
		if (n > id)
			break;
		found = found || n == id;
		start = h->position;
	}
	back_to(h, start);
	return found;
}

/* what a query has in quotes, between > and < */
static void filter_of(LPCWSTR query, char filter[256])
{
	char text[512] = "", *from, *to;
	if (query && !WideCharToMultiByte(CP_UTF8, 0, query, -1, text, sizeof text, NULL, NULL))
		return;
	if ((from = strchr(text, '\'')) && (to = strchr(++from, '\'')) && to - from < 250)
		snprintf(filter, 256, ">%.*s<", (int)(to - from), from);
}

EXPORT EVT_HANDLE WINAPI EvtSubscribe(EVT_HANDLE session, HANDLE signal, LPCWSTR channel, LPCWSTR query, EVT_HANDLE bookmark, PVOID context, PVOID callback, DWORD flags)
{
	(void)session, (void)context;
	if (!signal || callback || !channel || !*channel) {
		SetLastError(ERROR_INVALID_PARAMETER); /* pull is all that there is here */
		return NULL;
	}
	DWORD error = ordered(channel, "subscribe");
	if (error) {
		SetLastError(error);
		return NULL;
	}
	handle *mark = NULL;
	if ((flags & 3) == SUBSCRIBE_AFTER_BOOKMARK && !(mark = known(bookmark, BOOKMARK, BOOKMARK)))
		return NULL;
	handle *h = open_log(SUBSCRIPTION, channel);
	if (!h)
		return NULL;
	if (mark && !seek_behind(h, mark->id) && flags & SUBSCRIBE_STRICT) {
		free_handle(h);
		SetLastError(ERROR_NOT_FOUND);
		return NULL;
	}
	if ((flags & 3) != SUBSCRIBE_OLDEST && !mark)
		back_to(h, h->size);
	h->signal = signal;
	filter_of(query, h->filter);
	EnterCriticalSection(&lock);
	h->next = subscriptions;
	subscriptions = h;
	LeaveCriticalSection(&lock);
	SetEvent(signal);
	return h;
}

EXPORT EVT_HANDLE WINAPI EvtQuery(EVT_HANDLE session, LPCWSTR channel, LPCWSTR query, DWORD flags)
{
	(void)session, (void)query;
	handle *h = open_log(QUERY, channel);
	if (h)
		h->reverse = !!(flags & QUERY_REVERSE);
	return h;
}

static handle *new_record(handle *from, char *line)
{
	handle *r = new_handle(RECORD, from->channel);
	r->id = record_id(line);
	char *xml = strchr(line, '<');
	if (xml)
		memmove(line, xml, strlen(xml) + 1);
	r->xml = line;
	return r;
}

/* the newest record alone: that is what a query in reverse is asked for here */
static BOOL newest(handle *h, EVT_HANDLE *records, DWORD *returned)
{
	char *line, *last = NULL;
	while ((line = next_line(h))) {
		free(last);
		last = line;
	}
	if (!last)
		return fail(ERROR_NO_MORE_ITEMS);
	records[0] = new_record(h, last);
	*returned = 1;
	return TRUE;
}

EXPORT BOOL WINAPI EvtNext(EVT_HANDLE set, DWORD most, EVT_HANDLE *records, DWORD timeout, DWORD flags, DWORD *returned)
{
	(void)timeout, (void)flags;
	handle *h = known(set, SUBSCRIPTION, QUERY);
	*returned = 0;
	if (!h)
		return FALSE;
	if (h->reverse)
		return newest(h, records, returned);
	DWORD error = ordered(h->channel, "next");
	if (error)
		return fail(error);
	if (h->stale)
		return fail(STALE);
	DWORD n = 0;
	for (char *line; n < most && (line = next_line(h));)
		if (*line && strstr(line, h->filter))
			records[n++] = new_record(h, line);
		else
			free(line);
	if (!n)
		return fail(ERROR_NO_MORE_ITEMS);
	if (n > 1 && (error = ordered(h->channel, "batch")) && n > error) {
		while (n)
			free_handle(records[--n]);
		return fail(RPC_S_INVALID_BOUND);
	}
	*returned = n;
	return TRUE;
}

EXPORT BOOL WINAPI EvtClose(EVT_HANDLE e)
{
	handle *h = e;
	if (!h || h->magic != ALIVE) {
		InterlockedIncrement(&strangers);
		return fail(ERROR_INVALID_HANDLE);
	}
	free_handle(h);
	return TRUE;
}

EXPORT BOOL WINAPI EvtCancel(EVT_HANDLE e)
{
	handle *h = known(e, SUBSCRIPTION, QUERY);
	if (h && h->signal)
		SetEvent(h->signal);
	return h != NULL;
}

/* ---- rendering ---- */

/* gives text in UTF-16, as EvtRender does: sizes are in bytes, with the zero */
static BOOL give_text(const char *text, DWORD size, PVOID buffer, DWORD *used)
{
	int units = MultiByteToWideChar(CP_UTF8, 0, text, -1, NULL, 0);
	*used = units * sizeof(WCHAR);
	if (size < *used)
		return fail(ERROR_INSUFFICIENT_BUFFER);
	MultiByteToWideChar(CP_UTF8, 0, text, -1, buffer, units);
	return TRUE;
}

EXPORT BOOL WINAPI EvtRender(EVT_HANDLE context, EVT_HANDLE fragment, DWORD flags, DWORD size, PVOID buffer, DWORD *used, DWORD *count)
{
	(void)context;
	handle *h = known(fragment, RECORD, BOOKMARK);
	*used = 0;
	if (count)
		*count = 0;
	if (!h)
		return FALSE;
	DWORD error = ordered(h->channel, "render");
	if (error)
		return fail(error);
	if (flags == RENDER_XML && h->kind == RECORD)
		return give_text(h->xml, size, buffer, used);
	if (flags != RENDER_BOOKMARK || h->kind != BOOKMARK)
		return fail(ERROR_INVALID_PARAMETER);
	char channel[1024], text[1400];
	WideCharToMultiByte(CP_UTF8, 0, h->channel, -1, channel, sizeof channel, NULL, NULL);
	if (*channel)
		snprintf(text, sizeof text, "<BookmarkList>\r\n  <Bookmark Channel='%s' RecordId='%llu' IsCurrent='true'/>\r\n</BookmarkList>", channel, (unsigned long long)h->id);
	else
		strcpy(text, "<BookmarkList>\r\n</BookmarkList>");
	return give_text(text, size, buffer, used);
}

EXPORT EVT_HANDLE WINAPI EvtCreateBookmark(LPCWSTR xml)
{
	handle *h = new_handle(BOOKMARK, NULL);
	const WCHAR *channel, *id;
	if (!xml)
		return h;
	if (!wcsstr(xml, L"<BookmarkList") || !wcsstr(xml, L"</BookmarkList>")) {
		free_handle(h);
		SetLastError(BAD_XML);
		return NULL;
	}
	if ((channel = wcsstr(xml, L"Channel=")) && (id = wcsstr(xml, L"RecordId="))) {
		WCHAR quote = channel[8];
		size_t n = 0;
		for (channel += 9; *channel && *channel != quote && n < 255; channel++)
			h->channel[n++] = *channel;
		h->id = _wcstoui64(id + 10, NULL, 10);
	}
	return h;
}

EXPORT BOOL WINAPI EvtUpdateBookmark(EVT_HANDLE bookmark, EVT_HANDLE record)
{
	handle *b = known(bookmark, BOOKMARK, BOOKMARK), *r = known(record, RECORD, RECORD);
	if (!b || !r)
		return FALSE;
	lstrcpynW(b->channel, r->channel, 256);
	b->id = r->id;
	return TRUE;
}

/* ---- channels and logs ---- */

EXPORT EVT_HANDLE WINAPI EvtOpenChannelEnum(EVT_HANDLE session, DWORD flags)
{
	(void)session, (void)flags;
	handle *h = new_handle(CHANNELS, NULL);
	WCHAR pattern[MAX_PATH];
	_snwprintf(pattern, MAX_PATH, L"%ls\\*.log", folder);
	h->find = FindFirstFileW(pattern, &h->found);
	h->more = h->find != INVALID_HANDLE_VALUE;
	return h;
}

EXPORT BOOL WINAPI EvtNextChannelPath(EVT_HANDLE e, DWORD units, LPWSTR path, DWORD *used)
{
	handle *h = known(e, CHANNELS, CHANNELS);
	*used = 0;
	if (!h)
		return FALSE;
	if (!h->more)
		return fail(ERROR_NO_MORE_ITEMS);
	size_t n = wcslen(h->found.cFileName) - 4; /* without ".log" */
	*used = n + 1;
	if (units < *used)
		return fail(ERROR_INSUFFICIENT_BUFFER);
	for (size_t i = 0; i < n; i++)
		path[i] = h->found.cFileName[i] == L'!' ? L'/' : h->found.cFileName[i];
	path[n] = 0;
	h->more = FindNextFileW(h->find, &h->found);
	return TRUE;
}

EXPORT EVT_HANDLE WINAPI EvtOpenChannelConfig(EVT_HANDLE session, LPCWSTR channel, DWORD flags)
{
	(void)session, (void)flags;
	if (size_of(channel) < 0) {
		SetLastError(NO_CHANNEL);
		return NULL;
	}
	return new_handle(CONFIG, channel);
}

static BOOL give_variant(EVT_VARIANT v, DWORD size, EVT_VARIANT *out, DWORD *used)
{
	*used = sizeof v;
	if (size < sizeof v)
		return fail(ERROR_INSUFFICIENT_BUFFER);
	*out = v;
	return TRUE;
}

EXPORT BOOL WINAPI EvtGetChannelConfigProperty(EVT_HANDLE e, DWORD property, DWORD flags, DWORD size, EVT_VARIANT *out, DWORD *used)
{
	(void)flags;
	handle *h = known(e, CONFIG, CONFIG);
	if (!h)
		return FALSE;
	switch (property) {
	case CONFIG_ENABLED:
		return give_variant((EVT_VARIANT){ .boolean = !ordered(h->channel, "config"), .type = TYPE_BOOLEAN }, size, out, used);
	case CONFIG_MAX_SIZE: {
		DWORD most = ordered(h->channel, "most");
		return give_variant((EVT_VARIANT){ .number = most ? most : MAX_SIZE, .type = TYPE_UINT64 }, size, out, used);
	}
	}
	return fail(ERROR_INVALID_PARAMETER);
}

EXPORT EVT_HANDLE WINAPI EvtOpenLog(EVT_HANDLE session, LPCWSTR path, DWORD flags)
{
	(void)session, (void)flags;
	return open_log(LOG, path);
}

EXPORT BOOL WINAPI EvtGetLogInfo(EVT_HANDLE e, DWORD property, DWORD size, EVT_VARIANT *out, DWORD *used)
{
	handle *h = known(e, LOG, LOG);
	if (!h)
		return FALSE;
	UINT64 oldest = 0, records = 0, number;
	char *line;
	for (back_to(h, 0); (line = next_line(h)); free(line)) {
		if (!records++)
			oldest = record_id(line);
	}
	switch (property) {
	case LOG_SIZE:
		number = h->size;
		break;
	case LOG_RECORDS:
		number = records;
		break;
	case LOG_OLDEST:
		number = oldest;
		break;
	default:
		return fail(ERROR_INVALID_PARAMETER);
	}
	return give_variant((EVT_VARIANT){ .number = number, .type = TYPE_UINT64 }, size, out, used);
}

/* ---- messages: one provider is installed, "Double", and it has one text ---- */

EXPORT EVT_HANDLE WINAPI EvtOpenPublisherMetadata(EVT_HANDLE session, LPCWSTR publisher, LPCWSTR file, LCID locale, DWORD flags)
{
	(void)session, (void)file, (void)locale, (void)flags;
	if (wcscmp(publisher, L"Double")) {
		SetLastError(NO_PUBLISHER);
		return NULL;
	}
	return new_handle(PUBLISHER, NULL);
}

EXPORT BOOL WINAPI EvtFormatMessage(EVT_HANDLE publisher, EVT_HANDLE record, DWORD id, DWORD count, EVT_VARIANT *values, DWORD flags, DWORD units, LPWSTR text, DWORD *used)
{
	(void)id, (void)count, (void)values, (void)flags;
	handle *r = known(record, RECORD, RECORD);
	*used = 0;
	if (!r || !known(publisher, PUBLISHER, PUBLISHER))
		return FALSE;
	WCHAR message[64];
	*used = _snwprintf(message, 64, L"Record %I64u happened.", r->id) + 1;
	if (units < *used)
		return fail(ERROR_INSUFFICIENT_BUFFER);
	memcpy(text, message, *used * sizeof(WCHAR));
	return TRUE;
}

/* ---- life of the library ---- */

static void tell_handles(void)
{
	WCHAR path[MAX_PATH];
	_snwprintf(path, MAX_PATH, L"%ls\\handles.json", folder);
	FILE *f = _wfopen(path, L"w");
	if (!f)
		return;
	fprintf(f, "{\"strangers\":%ld", strangers);
	for (kind k = 0; k < KINDS; k++)
		fprintf(f, ",\"%s\":{\"opened\":%ld,\"closed\":%ld}", kind_names[k], opened[k], closed[k]);
	fputs("}\n", f);
	fclose(f);
}

BOOL WINAPI DllMain(HINSTANCE instance, DWORD reason, LPVOID reserved)
{
	(void)reserved;
	switch (reason) {
	case DLL_PROCESS_ATTACH:
		DisableThreadLibraryCalls(instance);
		if (!GetEnvironmentVariableW(L"WEVT_DOUBLE", folder, MAX_PATH))
			wcscpy(folder, L"C:\\wevt");
		InitializeCriticalSection(&lock);
		CloseHandle(CreateThread(NULL, 0, watch, NULL, 0, NULL));
		break;
	case DLL_PROCESS_DETACH:
		tell_handles();
		break;
	}
	return TRUE;
}
