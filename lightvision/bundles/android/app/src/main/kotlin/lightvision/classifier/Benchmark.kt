package lightvision.classifier

import ai.onnxruntime.OrtEnvironment
import android.app.ActivityManager
import android.content.Context
import android.os.Build
import android.os.PowerManager
import org.json.JSONArray
import org.json.JSONObject
import kotlin.math.abs

private const val ROUNDS = 15
private const val SECONDS = 5.0 // that are timed of each way, all rounds together
private const val WARM_UP = 5
private const val FEWEST = 3
private const val TOLERANCE = 0.05 // of a probability: kernels of another processor round otherwise
private val WAYS = mapOf("one_thread" to 1, "all_threads" to 0)

/** Times the network on this device and compares its answers with those from where the bundle was made. */
class Benchmark(private val context: Context, private val facts: Facts) {
    private val model = asset(context, "model.onnx")
    private val pictures = asset(context, "checks.bin")
    private val expected = JSONArray(String(asset(context, "checks.json")))

    fun measured(): JSONObject {
        val before = state()
        val check = checked()
        val rounds = WAYS.mapValues { mutableListOf<List<Double>>() }
        repeat(ROUNDS) {
            for ((way, threads) in WAYS.entries.shuffled()) rounds.getValue(way).add(clocked(threads))
        }
        val file = JSONObject().put("bytes", model.size).put("sha256", facts.sha256)
        for ((way, found) in rounds) file.put(way, told(Timing(found)))
        return JSONObject()
            .put("device", device())
            .put("machine", machine().put("before", before).put("after", state()))
            .put("confidence", CONFIDENCE)
            .put("interval", "order statistics of the rounds' medians, taken as independent")
            .put("files", JSONObject().put(facts.name, file))
            .put("agreement", check.get("agreement"))
            .put("check", check)
    }

    private fun clocked(threads: Int): List<Double> = Classifier(model, facts.size, threads).use {
        it.milliseconds(picture(0), 0.0, WARM_UP)
        it.milliseconds(picture(0), SECONDS / ROUNDS, FEWEST)
    }

    private fun told(timing: Timing) = JSONObject()
        .put("median", timing.median)
        .put("low", timing.low)
        .put("high", timing.high)
        .put("p95", timing.p95)
        .put("calls", timing.count)
        .put("rounds", timing.rounds)
        .put("noisy", timing.noisy)

    private fun checked(): JSONObject = Classifier(model, facts.size, 1).use { classifier ->
        var same = 0
        var difference = 0.0
        for (index in 0 until expected.length()) {
            val wanted = expected.getJSONArray(index).let { row -> DoubleArray(row.length()) { row.getDouble(it) } }
            val found = classifier.probabilities(picture(index))
            if (highest(found) == highest(wanted)) same++
            for (at in found.indices) difference = maxOf(difference, abs(found[at] - wanted[at]))
        }
        val agreement = same.toDouble() / expected.length()
        JSONObject()
            .put("pictures", expected.length())
            .put("agreement", agreement)
            .put("largest_difference", difference)
            .put("passed", agreement == 1.0 && difference <= TOLERANCE)
    }

    private fun picture(index: Int): ByteArray {
        val bytes = facts.size * facts.size * 3
        return pictures.copyOfRange(index * bytes, (index + 1) * bytes)
    }

    private fun highest(values: DoubleArray): Int = values.indices.maxByOrNull { values[it] } ?: -1

    private fun device(): String =
        "${Build.MANUFACTURER} ${Build.MODEL}".lowercase().replace(Regex("[^a-z0-9]+"), "-").trim('-')

    private fun machine(): JSONObject {
        val memory = ActivityManager.MemoryInfo()
        (context.getSystemService(Context.ACTIVITY_SERVICE) as ActivityManager).getMemoryInfo(memory)
        val abi = Build.SUPPORTED_ABIS.first()
        return JSONObject()
            .put("cpu", if (Build.VERSION.SDK_INT >= 31) "${Build.SOC_MANUFACTURER} ${Build.SOC_MODEL}" else Build.HARDWARE)
            .put("board", "${Build.MANUFACTURER} ${Build.MODEL}")
            .put("cores", Runtime.getRuntime().availableProcessors())
            .put("memory_bytes", memory.totalMem)
            // x86 may add products of uint8 and int8 in pairs of 16 bits, where they saturate
            .put("integer_products", if (abi.startsWith("arm")) "exact" else "saturating")
            .put("system", "Android")
            .put("version", Build.VERSION.RELEASE)
            .put("abi", abi)
            .put("onnxruntime", OrtEnvironment.getEnvironment().version)
    }

    private fun state(): JSONObject {
        val power = context.getSystemService(Context.POWER_SERVICE) as PowerManager
        val heat: Any = if (Build.VERSION.SDK_INT >= 29) power.currentThermalStatus else JSONObject.NULL
        return JSONObject().put("thermal_status", heat).put("power_save", power.isPowerSaveMode)
    }
}
