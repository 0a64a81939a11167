package lightvision.classifier

import android.content.Context
import org.json.JSONArray
import org.json.JSONObject

/** What assets/bundle.json tells of the network. */
class Facts(told: JSONObject) {
    val name: String = told.getString("name")
    val dataset: String = told.getString("dataset")
    val classes: List<String> = told.getJSONArray("classes").strings()
    val size: Int = told.getInt("image_size")
    val fit: Fit = Fit.valueOf(told.getString("fit").uppercase())
    val bytes: Int = told.getJSONObject("model").getInt("bytes")
    val sha256: String = told.getJSONObject("model").getString("sha256")
    val accuracy: Accuracy? = told.getJSONObject("accuracy").let { shares ->
        listOf("test", "val").filter { !shares.isNull(it) }.map { Accuracy(it, shares.getJSONObject(it)) }.firstOrNull()
    }

    companion object {
        fun of(context: Context) = Facts(JSONObject(String(asset(context, "bundle.json"))))
    }
}

class Accuracy(val split: String, told: JSONObject) {
    val share: Double = told.getDouble("accuracy")
    val low: Double = told.getDouble("low")
    val high: Double = told.getDouble("high")
    val pictures: Int = told.getInt("pictures")
}

fun JSONArray.strings(): List<String> = List(length()) { getString(it) }

fun asset(context: Context, name: String): ByteArray = context.assets.open(name).use { it.readBytes() }
